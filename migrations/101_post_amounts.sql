-- Read durations out of data without ever failing

-- A number of data that is a measured amount, else null: data may hold anything, and one cast that fails would stop the
-- aggregate for everybody. Null for what is not a number, is negative, or is beyond 1e100, where sums and squares
-- overflow; below 1e-9 it is zero, because float8 cannot hold the smallest numbers that jsonb can. The CASEs are nested
-- because only they promise the order of evaluation. No SET clause, so that the planner can inline it.
CREATE FUNCTION analytics_amount(value jsonb) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE
            WHEN value::numeric NOT BETWEEN 0 AND 1e100 THEN NULL
            WHEN value::numeric < 1e-9 THEN 0
            ELSE value::numeric::float8
        END
    END;
