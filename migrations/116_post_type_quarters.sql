-- Aggregate events by quarter hour, service and type, in sums that can be added up

-- `measured` counts the events that have a duration; `succeeded` and `failed` those that tell.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_type_quarters
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('15 minutes', timestamp) AS quarter,
    service,
    event_type,
    count(*) AS events,
    count(analytics_amount(data -> 'duration_ms')) AS measured,
    sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
    count(*) FILTER (WHERE data ->> 'success' = 'true') AS succeeded,
    count(*) FILTER (WHERE data ->> 'success' = 'false') AS failed
FROM analytics_events
GROUP BY quarter, service, event_type
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_type_quarters');

-- To find one type's quarter hours. Without a name: the index stands in a schema that all installations share.
CREATE INDEX ON analytics_type_quarters (event_type, quarter);

-- postgresql

CREATE FUNCTION analytics_type_quarters_live(since timestamptz, until timestamptz) RETURNS TABLE (
    quarter timestamptz,
    service text,
    event_type text,
    events bigint,
    measured bigint,
    duration_ms float8,
    succeeded bigint,
    failed bigint
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('15 minutes', timestamp) AS quarter,
        service,
        event_type,
        count(*) AS events,
        count(analytics_amount(data -> 'duration_ms')) AS measured,
        sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
        count(*) FILTER (WHERE data ->> 'success' = 'true') AS succeeded,
        count(*) FILTER (WHERE data ->> 'success' = 'false') AS failed
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
    GROUP BY quarter, service, event_type;
    END;

-- By the hour, because changes are noted by the hour.
SELECT analytics_make_filled('analytics_type_quarters', '1 hour');

-- To find one type's quarter hours.
CREATE INDEX analytics_type_quarters_filled_event_type_quarter_idx ON analytics_type_quarters_filled (event_type, quarter);
