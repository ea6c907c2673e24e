-- Let nobody call the hourly upkeep but the owner and who may insert events
-- for: postgresql

-- It runs with the owner's rights, so that PUBLIC has no business with it. Who may insert today was served by PUBLIC until
-- now, and goes on; who may tomorrow is given it by analytics-migrate roles, or by hand.
REVOKE EXECUTE ON FUNCTION analytics_upkeep() FROM PUBLIC;

DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = 'analytics_events'::regclass AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION analytics_upkeep() TO ' || writer;
    END LOOP;
END
$$;
