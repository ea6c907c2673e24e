-- facts --
-- Describe the server and what it knows of TimescaleDB. The extension's loader defines settings; the setting
-- shared_preload_libraries itself is hidden from all but superusers.
SELECT split_part(current_setting('server_version'), ' ', 1) AS server,
       current_user AS role,
       current_database() AS database,
       to_regnamespace('public') IS NOT NULL AS has_public,
       (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'timescaledb') AS available,
       (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'timescaledb') AS installed,
       (SELECT nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
         WHERE extname = 'timescaledb') AS extension_schema,
       (SELECT has_schema_privilege(extnamespace, 'USAGE') FROM pg_catalog.pg_extension
         WHERE extname = 'timescaledb') AS may_use_extension,
       EXISTS (SELECT FROM pg_catalog.pg_settings WHERE name LIKE 'timescaledb.%') AS preloaded,
       current_setting('timescaledb.license', true) AS licence;

-- licence --
-- Return TimescaleDB's licence.
SELECT current_setting('timescaledb.license', true);

-- create_extension --
-- Create the extension where most databases have it.
CREATE EXTENSION timescaledb SCHEMA public;

-- create_extension_in_schema --
-- Create the extension in a database without the schema public.
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE EXTENSION timescaledb SCHEMA {schema};
