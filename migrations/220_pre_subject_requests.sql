-- Log what was done for a person who asked, without saying who it was; let each table say where it holds a person

-- A request that is not completed was interrupted: the same command goes on with it.
CREATE TABLE analytics_subject_requests (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- HMAC-SHA256 of the user's UUID under the key of analytics_subject_key, in hex.
    subject text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('export', 'anonymise', 'erase')),
    requested_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now() + INTERVAL '30 days',
    completed_at timestamptz,
    -- How many rows there were, by table.
    rows jsonb NOT NULL DEFAULT '{}'
);
CREATE UNIQUE INDEX analytics_subject_requests_open_idx ON analytics_subject_requests (subject, kind)
    WHERE completed_at IS NULL;
CREATE INDEX analytics_subject_requests_requested_at_idx ON analytics_subject_requests (requested_at);

-- Whoever has the requests and not this key cannot try users: a UUIDv5 of a number is quickly guessed, and so is its
-- plain hash. In a table of its own, so that a dump of the requests can leave it out.
CREATE TABLE analytics_subject_key (key bytea NOT NULL);
-- 244 random bits; gen_random_bytes() would need an extension.
INSERT INTO analytics_subject_key (key)
VALUES (sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
CREATE UNIQUE INDEX analytics_subject_key_one_idx ON analytics_subject_key ((true));

COMMENT ON TABLE analytics_subject_requests IS 'What was done for persons who asked: one row per request.';
COMMENT ON TABLE analytics_subject_key IS 'The key of the hashes in analytics_subject_requests: one row.';

-- Say in which form these columns of a table, or of the view of what an aggregate holds, hold a person. It is the last
-- line of their comments, "person: FORM", where analytics-subject finds it. The forms are
--
-- - user: the UUID of a user; null when the user is anonymised;
-- - owner: the UUID of the user whom the row is about; the row goes also when the user is anonymised;
-- - hash: md5() of a user's UUID, as a UUID; null when the user is anonymised;
-- - session: what connects the events of a visit;
-- - event: JSON with what happened, or all of an event;
-- - text: words out of events, in which an id may be quoted; with a user or a hash beside it, only the user's own rows
--   are changed.
--
-- A table that holds no person says so itself: no columns, and the form none.
CREATE FUNCTION analytics_holds_person(relation regclass, form text, VARIADIC columns text[] DEFAULT '{}') RETURNS void
    LANGUAGE plpgsql
    SET search_path FROM CURRENT
    AS $$
DECLARE
    said constant text := '\n?person: [a-z]+$';
    kind text;
    one text;
    place integer;
BEGIN
    IF form NOT IN ('none', 'user', 'owner', 'hash', 'session', 'event', 'text') OR (form = 'none') <> (columns = '{}')
    THEN
        RAISE EXCEPTION 'a table holds a person in columns, in a known form, or not at all: %, %', form, columns
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF form = 'none' THEN
        SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END INTO kind FROM pg_class AS c WHERE c.oid = relation;
        EXECUTE format(
            'COMMENT ON %s %s IS %L', kind, relation,
            concat_ws(E'\n', nullif(regexp_replace(obj_description(relation, 'pg_class'), said, ''), ''), 'person: none')
        );
    END IF;
    FOREACH one IN ARRAY columns LOOP
        SELECT a.attnum INTO STRICT place FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = one;
        EXECUTE format(
            'COMMENT ON COLUMN %s.%I IS %L', relation, one,
            concat_ws(E'\n', nullif(regexp_replace(col_description(relation, place), said, ''), ''), 'person: ' || form)
        );
    END LOOP;
END
$$;
