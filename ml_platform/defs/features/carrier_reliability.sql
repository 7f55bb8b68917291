/*
description: How late a carrier's flights left and landed in the last hours and over 30 days, every hour.
owner: data-platform@example.com
entity: [carrier]
ttl: 2 days
tags: {domain: traffic, refresh: hourly}
columns:
  dep_delay_3h: {type: number, unit: minute, description: Mean departure delay of flights that left in the last three hours.}
  dep_late_share_3h: {type: number, description: Share of flights that left in the last three hours 15 or more minutes late.}
  arr_delay_6h: {type: number, unit: minute, description: Mean arrival delay of flights that landed in the last six hours.}
  arr_late_share_24h: {type: number, description: Share of flights that landed in the last 24 hours 15 or more minutes late.}
  arr_delay_30d: {type: number, unit: minute, description: Mean arrival delay of flights that landed in the last 30 days.}
  arr_late_share_30d: {type: number, description: Share of flights that landed in the last 30 days 15 or more minutes late.}
*/
-- Everything is counted into the first hour by whose end it was known, then summed over such hours. The hours go on to
-- the newest event anywhere, lest a carrier's past depend on when its next flight leaves.
WITH events AS (
    SELECT
        carrier, actual_departure AS known_at, 1 AS departed, dep_delay AS dep_delay, (dep_delay >= 15)::INT AS dep_late,
        0 AS arrived, 0 AS arr_delay, 0 AS arr_late
    FROM raw.flights WHERE actual_departure IS NOT NULL AND dep_delay IS NOT NULL
    UNION ALL
    SELECT carrier, actual_arrival, 0, 0, 0, 1, arr_delay, (arr_delay >= 15)::INT
    FROM raw.flights WHERE actual_arrival IS NOT NULL AND arr_delay IS NOT NULL
),
counted AS (
    SELECT
        carrier,
        time_bucket(INTERVAL 1 HOUR, known_at - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR AS event_time,
        sum(departed) AS departed, sum(dep_delay) AS dep_delay, sum(dep_late) AS dep_late,
        sum(arrived) AS arrived, sum(arr_delay) AS arr_delay, sum(arr_late) AS arr_late
    FROM events
    GROUP BY ALL
),
newest AS (
    SELECT time_bucket(INTERVAL 1 HOUR, greatest(max(actual_departure), max(actual_arrival))) + INTERVAL 1 HOUR AS tick
    FROM raw.flights
),
hours AS (
    SELECT carrier, unnest(generate_series(min(event_time), any_value(newest.tick), INTERVAL 1 HOUR)) AS event_time
    FROM counted, newest
    GROUP BY carrier
)
SELECT
    carrier,
    event_time,
    sum(dep_delay) OVER h3 / nullif(sum(departed) OVER h3, 0) AS dep_delay_3h,
    sum(dep_late) OVER h3 / nullif(sum(departed) OVER h3, 0) AS dep_late_share_3h,
    sum(arr_delay) OVER h6 / nullif(sum(arrived) OVER h6, 0) AS arr_delay_6h,
    sum(arr_late) OVER h24 / nullif(sum(arrived) OVER h24, 0) AS arr_late_share_24h,
    sum(arr_delay) OVER d30 / nullif(sum(arrived) OVER d30, 0) AS arr_delay_30d,
    sum(arr_late) OVER d30 / nullif(sum(arrived) OVER d30, 0) AS arr_late_share_30d
FROM hours LEFT JOIN counted USING (carrier, event_time)
WINDOW
    h3 AS (PARTITION BY carrier ORDER BY event_time ROWS 2 PRECEDING),
    h6 AS (PARTITION BY carrier ORDER BY event_time ROWS 5 PRECEDING),
    h24 AS (PARTITION BY carrier ORDER BY event_time ROWS 23 PRECEDING),
    d30 AS (PARTITION BY carrier ORDER BY event_time ROWS 719 PRECEDING)
