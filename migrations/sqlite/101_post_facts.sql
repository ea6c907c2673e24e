-- Show what is in events by name: the buckets of their times, and what aggregates read of their JSON

-- A measured amount is a number from 0 to 1e100; what is smaller than 1e-9 is zero. Null for anything else: data may
-- hold anything.
CREATE VIEW analytics_event_facts AS
SELECT
    e.id,
    e.timestamp,
    e.event_type,
    e.service,
    e.user_id,
    e.session_id,
    e.data,
    e.context,
    substr(e.timestamp, 1, 10) || 'T00:00:00.000000Z' AS day,
    substr(e.timestamp, 1, 13) || ':00:00.000000Z' AS hour,
    substr(e.timestamp, 1, 14) || CASE WHEN substr(e.timestamp, 15, 2) < '30' THEN '00' ELSE '30' END || ':00.000000Z'
        AS half_hour,
    substr(e.timestamp, 1, 14) || CASE
        WHEN substr(e.timestamp, 15, 2) < '15' THEN '00'
        WHEN substr(e.timestamp, 15, 2) < '30' THEN '15'
        WHEN substr(e.timestamp, 15, 2) < '45' THEN '30'
        ELSE '45'
    END || ':00.000000Z' AS quarter,
    CASE json_type(e.context, '$.environment')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.context, '$.environment') AS TEXT)
    END AS environment,
    CASE json_type(e.context, '$.visitor')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.context, '$.visitor') AS TEXT)
    END AS visitor,
    CASE json_type(e.data, '$.endpoint')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.endpoint') AS TEXT)
    END AS endpoint,
    CASE json_type(e.data, '$.method')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.method') AS TEXT)
    END AS method,
    CASE json_type(e.data, '$.error_type')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.error_type') AS TEXT)
    END AS error_type,
    CASE json_type(e.data, '$.error_message')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.error_message') AS TEXT)
    END AS error_message,
    CASE json_type(e.data, '$.fingerprint')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.fingerprint') AS TEXT)
    END AS fingerprint,
    CASE json_type(e.data, '$.outcome')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.outcome') AS TEXT)
    END AS outcome,
    CASE json_type(e.data, '$.provider')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.provider') AS TEXT)
    END AS provider,
    CASE json_type(e.data, '$.page')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.page') AS TEXT)
    END AS page,
    CASE json_type(e.data, '$.success')
        WHEN 'true' THEN 'true'
        WHEN 'false' THEN 'false'
        ELSE CAST(json_extract(e.data, '$.success') AS TEXT)
    END AS success,
    CASE
        WHEN json_type(e.data, '$.duration_ms') IN ('integer', 'real') AND json_extract(e.data, '$.duration_ms') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.duration_ms') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.duration_ms') AS REAL)
            END
    END AS duration_ms,
    CASE
        WHEN json_type(e.data, '$.status_code') IN ('integer', 'real') AND json_extract(e.data, '$.status_code') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.status_code') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.status_code') AS REAL)
            END
    END AS status_code,
    CASE
        WHEN json_type(e.data, '$.db_queries') IN ('integer', 'real') AND json_extract(e.data, '$.db_queries') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.db_queries') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.db_queries') AS REAL)
            END
    END AS db_queries,
    CASE
        WHEN json_type(e.data, '$.db_repeats') IN ('integer', 'real') AND json_extract(e.data, '$.db_repeats') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.db_repeats') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.db_repeats') AS REAL)
            END
    END AS db_repeats,
    CASE
        WHEN json_type(e.data, '$.duration_seconds') IN ('integer', 'real') AND json_extract(e.data, '$.duration_seconds') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.duration_seconds') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.duration_seconds') AS REAL)
            END
    END AS duration_seconds,
    CASE
        WHEN json_type(e.data, '$.visible_ms') IN ('integer', 'real') AND json_extract(e.data, '$.visible_ms') BETWEEN 0 AND 1e100
            THEN CASE
                WHEN json_extract(e.data, '$.visible_ms') < 1e-9 THEN 0.0
                ELSE CAST(json_extract(e.data, '$.visible_ms') AS REAL)
            END
    END AS visible_ms
FROM analytics_events AS e;
