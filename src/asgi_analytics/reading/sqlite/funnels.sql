-- Funnels that are kept by their names.

-- list --
-- List all of them.
SELECT f.id, f.name, f.description, f.steps, f.conversion_window, f.created_at
FROM analytics_funnels AS f
ORDER BY f.name;

-- find --
-- Find the one of the name $1.
SELECT f.id, f.name, f.description, f.steps, f.conversion_window, f.created_at
FROM analytics_funnels AS f
WHERE f.name = $1;

-- create --
-- Keep one of the name $1, with the description $2, the steps $3 and the window $4; nothing if the name is taken.
INSERT INTO analytics_funnels (name, description, steps, conversion_window)
VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING id, name, description, steps, conversion_window, created_at;

-- delete --
-- Delete the one of the name $1.
DELETE FROM analytics_funnels WHERE name = $1 RETURNING id;
