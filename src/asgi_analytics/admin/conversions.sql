-- The table of conversions.

-- funnels --
-- List the funnels.
SELECT id, name FROM funnels ORDER BY name;

-- forget --
-- Take away what is known of a funnel.
DELETE FROM funnel_conversions WHERE funnel_id = ?;

-- write --
-- Write one attempt, unless its funnel was deleted meanwhile.
INSERT INTO funnel_conversions (
    funnel_id, user_id, session_id, started_at, completed_at, current_step, completed, step_timestamps
)
SELECT f.id, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM funnels AS f WHERE f.id = ?1;
