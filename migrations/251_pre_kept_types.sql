-- Let the ingestion service know for how long the rows of each type are kept: what is older it refuses

-- The types that have a category, and with null all others. SECURITY DEFINER: the service asks, and needs no right but to
-- insert events.
CREATE FUNCTION analytics_kept_types() RETURNS TABLE (event_type text, keep interval)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path FROM CURRENT
    AS $$
    SELECT t.event_type, least(r.keep, INTERVAL '36500 days')
    FROM analytics_event_types AS t
    JOIN analytics_retention AS r USING (category)
    UNION ALL
    SELECT NULL, least(min(r.keep), INTERVAL '36500 days') FROM analytics_retention AS r WHERE r.category = 'interaction'
    $$;

REVOKE EXECUTE ON FUNCTION analytics_kept_types() FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_kept_types() TO ' || writer;
    END LOOP;
END
$$;
