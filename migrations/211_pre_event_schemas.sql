-- Keep the schemas of events: what the classes of applications say their data look like, by version

-- One row per version of a type. Of each type one version is active, at most: that which events are checked by.
-- `required_fields` has `user_id` where the envelope must have one.
CREATE TABLE analytics_event_schemas (
    event_type text NOT NULL CHECK (char_length(event_type) BETWEEN 1 AND 255),
    version integer NOT NULL CHECK (version > 0),
    event_category text NOT NULL REFERENCES analytics_retention,
    schema_definition jsonb NOT NULL,
    required_fields text[] NOT NULL,
    example_payload jsonb,
    description text,
    retention_days integer NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_type, version)
);
CREATE UNIQUE INDEX analytics_event_schemas_active_idx ON analytics_event_schemas (event_type) WHERE is_active;

COMMENT ON TABLE analytics_event_schemas IS 'JSON Schema of the data of each type of event, by version.';

-- What tells whether a schema has changed since it was read, and the schemas that events are checked by. SECURITY
-- DEFINER: the ingestion service asks, and needs no right but to insert events.
CREATE FUNCTION analytics_schemas_fingerprint() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT coalesce(md5(string_agg(s.event_type || ' ' || s.version || ' ' || extract(epoch FROM s.updated_at), ','
        ORDER BY s.event_type, s.version)), '')
    FROM analytics_event_schemas AS s
    WHERE s.is_active
    $$;

CREATE FUNCTION analytics_active_schemas() RETURNS TABLE (event_type text, schema_definition jsonb, needs_user boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT s.event_type, s.schema_definition, 'user_id' = ANY (s.required_fields)
    FROM analytics_event_schemas AS s
    WHERE s.is_active
    $$;

REVOKE EXECUTE ON FUNCTION analytics_schemas_fingerprint(), analytics_active_schemas() FROM PUBLIC;
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role, a.privilege_type AS may
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type IN ('INSERT', 'SELECT')
            AND a.grantee <> c.relowner
    LOOP
        IF one.may = 'INSERT' THEN
            EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_schemas_fingerprint(), analytics_active_schemas() TO ' || one.role;
        ELSE
            EXECUTE 'GRANT SELECT ON analytics_event_schemas TO ' || one.role;
        END IF;
    END LOOP;
END
$$;
