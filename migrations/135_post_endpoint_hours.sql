-- Aggregate API requests by hour, service, environment, endpoint and method, in sums that can be added up

-- Averages cannot be added up, so the averages of longer ranges come from here.

-- timescaledb

CREATE MATERIALIZED VIEW analytics_endpoint_hours
WITH (timescaledb.continuous, timescaledb.materialized_only = false, timescaledb.create_group_indexes = false) AS
SELECT
    time_bucket('1 hour', timestamp) AS hour,
    service,
    context ->> 'environment' AS environment,
    data ->> 'endpoint' AS endpoint,
    data ->> 'method' AS method,
    count(*) AS requests,
    count(analytics_amount(data -> 'duration_ms')) AS measured,
    sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
    count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
    count(analytics_amount(data -> 'db_queries')) AS with_queries,
    sum(analytics_amount(data -> 'db_queries')) AS db_queries,
    max(analytics_amount(data -> 'db_repeats')) AS max_db_repeats
FROM analytics_events
WHERE event_type = 'api_request'
GROUP BY hour, service, environment, endpoint, method
WITH NO DATA;

SELECT analytics_keep_fresh('analytics_endpoint_hours');

-- postgresql

CREATE FUNCTION analytics_endpoint_hours_live(since timestamptz, until timestamptz) RETURNS TABLE (
    hour timestamptz,
    service text,
    environment text,
    endpoint text,
    method text,
    requests bigint,
    measured bigint,
    duration_ms float8,
    errors_4xx bigint,
    errors_5xx bigint,
    with_queries bigint,
    db_queries float8,
    max_db_repeats float8
)
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
    SELECT
        analytics_bucket('1 hour', timestamp) AS hour,
        service,
        context ->> 'environment' AS environment,
        data ->> 'endpoint' AS endpoint,
        data ->> 'method' AS method,
        count(*) AS requests,
        count(analytics_amount(data -> 'duration_ms')) AS measured,
        sum(analytics_amount(data -> 'duration_ms')) AS duration_ms,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 400 AND 499) AS errors_4xx,
        count(*) FILTER (WHERE analytics_amount(data -> 'status_code') BETWEEN 500 AND 599) AS errors_5xx,
        count(analytics_amount(data -> 'db_queries')) AS with_queries,
        sum(analytics_amount(data -> 'db_queries')) AS db_queries,
        max(analytics_amount(data -> 'db_repeats')) AS max_db_repeats
    FROM analytics_events
    WHERE timestamp >= since AND timestamp < until
        AND event_type = 'api_request'
    GROUP BY hour, service, environment, endpoint, method;
    END;

SELECT analytics_make_filled('analytics_endpoint_hours', '1 hour');
