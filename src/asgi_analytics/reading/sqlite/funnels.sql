-- Funnels that are kept by their names.

-- list --
-- List all of them.
SELECT
    f.id AS "id::uuid", f.name, f.description, f.steps, f.conversion_window AS "conversion_window::interval",
    f.created_at AS "created_at::timestamptz"
FROM analytics_funnels AS f
ORDER BY f.name;

-- find --
-- Find the one of the name $1.
SELECT
    f.id AS "id::uuid", f.name, f.description, f.steps, f.conversion_window AS "conversion_window::interval",
    f.created_at AS "created_at::timestamptz"
FROM analytics_funnels AS f
WHERE f.name = $1;

-- create --
-- Keep one of the name $1, with the description $2, the steps $3 and the window $4, microseconds; nothing if the name is
-- taken.
INSERT INTO funnels (id, name, description, steps, conversion_window)
VALUES (analytics_uuid(), $1, $2, $3, $4 / 1e6)
ON CONFLICT DO NOTHING
RETURNING
    id AS "id::uuid", name, description, steps, conversion_window AS "conversion_window::interval",
    created_at AS "created_at::timestamptz";

-- delete --
-- Delete the one of the name $1.
DELETE FROM funnels WHERE name = $1 RETURNING id;
