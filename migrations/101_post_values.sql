-- Read durations out of data without ever failing, and sort them into the bins of the latency histogram

-- A number of data that is a measured amount, else null: anybody may write any event by hand, and one cast that fails
-- would stop the aggregate for everybody. Null for what is no number, is negative, or is beyond 1e100, where sums and
-- squares overflow; below 1e-9 it is zero, for float8 cannot hold the smallest numbers that jsonb can. The CASEs are
-- nested because only they promise the order of evaluation. No SET clause: the planner has to be able to inline it.
CREATE FUNCTION analytics_amount(value jsonb) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN jsonb_typeof(value) = 'number' THEN
        CASE
            WHEN value::numeric NOT BETWEEN 0 AND 1e100 THEN NULL
            WHEN value::numeric < 1e-9 THEN 0
            ELSE value::numeric::float8
        END
    END;

-- The bin of a duration: -1000 for zero, else i for the durations in (1.04 ^ (i - 1), 1.04 ^ i], from -528 to 5871.
CREATE FUNCTION analytics_latency_bin(duration_ms float8) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN duration_ms > 0 THEN ceil(ln(duration_ms) / ln(1.04::float8))::smallint ELSE -1000::smallint END;

-- The duration that stands for a bin: 2 * 1.04 ^ i / 2.04, as far, relatively, from one end of the bin as from the
-- other: 0.04 / 2.04 = 1.96 %.
CREATE FUNCTION analytics_latency_of_bin(bin smallint) RETURNS float8
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN bin = -1000 THEN 0 ELSE 2 * (1.04::float8 ^ bin) / 2.04 END;
