-- Which category each type of event belongs to.

-- categories --
-- List the types that have one: all others are interaction.
SELECT t.event_type, t.category FROM analytics_event_types AS t;
