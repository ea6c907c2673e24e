-- Share the daily keys that visitors are counted by, and who was there at midnight

-- A visitor is the keyed hash of an address, an agent and a host: whoever has the key can try addresses. So only the
-- writer gets it, by a function; after 48 hours nobody has it, and the hashes of that day mean nothing any more.
CREATE TABLE analytics_visitor_keys (
    day date PRIMARY KEY,
    key bytea NOT NULL
);

-- Visitors of the last half hour of a day, and those whose visit goes on after it, with the time of the last view: a
-- process that meets one of them on the next day, under the next key, looks here whether the visit goes on.
CREATE TABLE analytics_midnight_visitors (
    visitor text PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

-- Forget what is older than two days: the key of a day 48 hours after the day began.
CREATE FUNCTION analytics_forget_visitors() RETURNS void
    LANGUAGE sql
    SET search_path FROM CURRENT
    AS $$
    DELETE FROM analytics_visitor_keys WHERE day < (now() AT TIME ZONE 'UTC')::date - 1;
    DELETE FROM analytics_midnight_visitors WHERE seen_at < now() - INTERVAL '48 hours';
    $$;

-- The key of a day by the clock of a client, made when it is first asked for. Null for a day that is over for long, or
-- far ahead. SECURITY DEFINER: a writer may read no table; it is the only one who may call this.
CREATE FUNCTION analytics_visitor_key(wanted date) RETURNS bytea
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
DECLARE
    today constant date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    PERFORM analytics_forget_visitors();
    IF wanted IS NULL OR wanted < today - 1 OR wanted > today + 1 THEN
        RETURN NULL;
    END IF;
    -- 244 random bits; gen_random_bytes() would need an extension.
    INSERT INTO analytics_visitor_keys (day, key)
    VALUES (wanted, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())))
    ON CONFLICT (day) DO NOTHING;
    RETURN (SELECT k.key FROM analytics_visitor_keys AS k WHERE k.day = wanted);
END
$$;

-- Which of these visitors were seen at most 30 minutes before these moments.
CREATE FUNCTION analytics_seen_visitors(visitors text[], moments timestamptz[]) RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT m.visitor
    FROM unnest(visitors, moments) AS asked (visitor, moment)
    JOIN analytics_midnight_visitors AS m USING (visitor)
    WHERE m.seen_at >= asked.moment - INTERVAL '30 minutes'
    $$;

-- Note when these visitors were seen.
CREATE FUNCTION analytics_note_visitors(visitors text[], moments timestamptz[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    INSERT INTO analytics_midnight_visitors AS known (visitor, seen_at)
    SELECT noted.visitor, max(noted.moment)
    FROM unnest(visitors, moments) AS noted (visitor, moment)
    GROUP BY noted.visitor
    ORDER BY noted.visitor  -- so that two writers wait for each other instead of ending in a deadlock
    ON CONFLICT (visitor) DO UPDATE SET seen_at = greatest(known.seen_at, excluded.seen_at)
    $$;

-- They run with the owner's rights, so PUBLIC may not call them. Roles that may insert events today may; later ones get
-- the right from analytics-migrate roles, or by hand.
DO $$
DECLARE
    function text;
    writer text;
BEGIN
    FOREACH function IN ARRAY ARRAY[
        'analytics_visitor_key(date)',
        'analytics_seen_visitors(text[], timestamptz[])',
        'analytics_note_visitors(text[], timestamptz[])'
    ] LOOP
        EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || function || ' FROM PUBLIC';
        FOR writer IN
            SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
            FROM pg_class AS c, aclexplode(c.relacl) AS a
            WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
        LOOP
            EXECUTE 'GRANT EXECUTE ON FUNCTION ' || function || ' TO ' || writer;
        END LOOP;
    END LOOP;
END
$$;
