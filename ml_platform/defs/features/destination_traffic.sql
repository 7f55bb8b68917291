/*
description: How late flights from New York landed at an airport over the last hours, every hour.
owner: data-platform@example.com
entity: [dest]
ttl: 12 hours
tags: {domain: traffic, refresh: hourly}
columns:
  arr_delay_3h: {type: number, unit: minute, description: Mean arrival delay of flights that landed in the last three hours.}
  arr_late_share_6h: {type: number, description: Share of flights that landed in the last six hours 15 or more minutes late.}
  arr_delay_24h: {type: number, unit: minute, description: Mean arrival delay of flights that landed in the last 24 hours.}
incremental:
  look_back: 5 days # 25 hours from its landing, and a flight lands less than four days after its schedule
  times: {raw/flights: scheduled_departure}
*/
-- Every arrival is counted into the first hour by whose end it was known, then summed over such hours. The hours of an
-- airport go on until nothing landed there for a day, at most to the newest event anywhere, lest its past depend on when
-- its next flight lands. So a row needs the flights of some days before it alone, and a new day computes only those anew.
WITH counted AS (
    SELECT
        dest,
        time_bucket(INTERVAL 1 HOUR, actual_arrival - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR AS event_time,
        count(*) AS arrived,
        sum(arr_delay) AS arr_delay,
        count(*) FILTER (WHERE arr_delay >= 15) AS arr_late
    FROM raw.flights
    WHERE actual_arrival IS NOT NULL AND arr_delay IS NOT NULL
    GROUP BY ALL
),
newest AS (
    SELECT time_bucket(INTERVAL 1 HOUR, greatest(max(actual_departure), max(actual_arrival))) + INTERVAL 1 HOUR AS tick
    FROM raw.flights
),
spells AS (
    SELECT *, lead(event_time, 1, TIMESTAMPTZ 'infinity') OVER (PARTITION BY dest ORDER BY event_time) AS following
    FROM counted
),
hours AS (
    SELECT
        dest,
        unnest(
            generate_series(
                event_time,
                least(following - INTERVAL 1 HOUR, event_time + INTERVAL 24 HOURS, newest.tick),
                INTERVAL 1 HOUR
            )
        ) AS event_time
    FROM spells, newest
)
SELECT
    dest,
    event_time,
    sum(arr_delay) OVER h3 / nullif(sum(arrived) OVER h3, 0) AS arr_delay_3h,
    sum(arr_late) OVER h6 / nullif(sum(arrived) OVER h6, 0) AS arr_late_share_6h,
    sum(arr_delay) OVER h24 / nullif(sum(arrived) OVER h24, 0) AS arr_delay_24h
FROM hours LEFT JOIN counted USING (dest, event_time)
WINDOW
    h3 AS (PARTITION BY dest ORDER BY event_time RANGE INTERVAL 2 HOURS PRECEDING),
    h6 AS (PARTITION BY dest ORDER BY event_time RANGE INTERVAL 5 HOURS PRECEDING),
    h24 AS (PARTITION BY dest ORDER BY event_time RANGE INTERVAL 23 HOURS PRECEDING)
