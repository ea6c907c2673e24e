-- Keep what is known of each user: the newest of every trait that a user_identified event has told

CREATE TABLE analytics_user_traits (
    user_id uuid PRIMARY KEY,
    traits jsonb NOT NULL,
    role text,
    registered_at timestamptz,
    -- When the newest of the traits was told.
    updated_at timestamptz NOT NULL,
    -- For each trait the time and the id of the event that told it: events come in any order. Its texts sort as they do.
    told_by jsonb NOT NULL
);

COMMENT ON TABLE analytics_user_traits IS 'What is known of each user, from user_identified events: one row per user.';
COMMENT ON COLUMN analytics_user_traits.told_by IS 'For each trait the time and the id of the event that told it.';

-- The moment that a text names, in UTC unless it has a zone; null for any other text.
CREATE FUNCTION analytics_moment(text text) RETURNS timestamptz
    LANGUAGE plpgsql STABLE
    SET timezone = 'UTC'
    SET datestyle = 'ISO, YMD'
    AS $$
BEGIN
    RETURN CASE WHEN text ~ '^\d{4}-\d\d-\d\d' THEN text::timestamptz END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END
$$;

-- SECURITY DEFINER: a writer needs no right but to insert events.
CREATE FUNCTION analytics_note_traits() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    SET timezone = 'UTC'
    AS $$
BEGIN
    -- Nearly every batch ends here.
    IF NOT EXISTS (SELECT FROM told WHERE event_type = 'user_identified' AND user_id IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    INSERT INTO analytics_user_traits AS known (user_id, traits, updated_at, told_by)
    SELECT
        t.user_id,
        coalesce(jsonb_object_agg(t.key, t.value) FILTER (WHERE t.key IS NOT NULL), '{}'),
        max(t.timestamp),
        coalesce(jsonb_object_agg(t.key, t.told_by) FILTER (WHERE t.key IS NOT NULL), '{}')
    FROM (
        SELECT DISTINCT ON (e.user_id, trait.key)
            e.user_id,
            trait.key,
            trait.value,
            e.timestamp,
            to_char(e.timestamp, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z "') || e.id AS told_by
        FROM told AS e
        LEFT JOIN LATERAL jsonb_each(CASE jsonb_typeof(e.data) WHEN 'object' THEN e.data END) AS trait ON true
        WHERE e.event_type = 'user_identified' AND e.user_id IS NOT NULL
        ORDER BY e.user_id, trait.key, e.timestamp DESC, e.id DESC
    ) AS t
    GROUP BY t.user_id
    -- In one order, so that two writers wait for each other instead of ending in a deadlock.
    ORDER BY t.user_id
    ON CONFLICT (user_id) DO UPDATE SET (traits, told_by, updated_at) = (
        SELECT
            known.traits || coalesce(jsonb_object_agg(heard.key, excluded.traits -> heard.key) FILTER (WHERE n.is_newer), '{}'),
            known.told_by || coalesce(jsonb_object_agg(heard.key, heard.value) FILTER (WHERE n.is_newer), '{}'),
            greatest(known.updated_at, excluded.updated_at)
        FROM jsonb_each(excluded.told_by) AS heard,
            LATERAL (
                SELECT coalesce((heard.value #>> '{}') COLLATE "C" > known.told_by ->> heard.key, true) AS is_newer
            ) AS n
    );
    UPDATE analytics_user_traits AS known
    SET role = known.traits ->> 'role', registered_at = analytics_moment(known.traits ->> 'registered_at')
    WHERE known.user_id IN (SELECT e.user_id FROM told AS e WHERE e.event_type = 'user_identified')
        AND (known.role, known.registered_at) IS DISTINCT FROM
            (known.traits ->> 'role', analytics_moment(known.traits ->> 'registered_at'));
    RETURN NULL;
END
$$;

CREATE TRIGGER analytics_note_traits AFTER INSERT ON analytics_events
    REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION analytics_note_traits();
