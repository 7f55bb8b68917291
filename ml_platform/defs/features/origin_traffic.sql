/*
description: Departures from an airport over the last hours and the queue of flights past their time, every 15 minutes.
owner: data-platform@example.com
entity: [origin]
ttl: 2 hours
tags: {domain: traffic, refresh: 15-minutes}
columns:
  departures_1h: {type: integer, unit: flights, description: Flights that left in the last hour.}
  dep_delay_1h: {type: number, unit: minute, description: Mean departure delay of flights that left in the last hour.}
  dep_late_share_1h: {type: number, description: Share of flights that left in the last hour 15 or more minutes late.}
  dep_delay_3h: {type: number, unit: minute, description: Mean departure delay of flights that left in the last three hours.}
  dep_late_share_3h: {type: number, description: Share of flights that left in the last three hours 15 or more minutes late.}
  arr_delay_3h: {type: number, unit: minute, description: Mean arrival delay of flights from here that landed in the last three hours.}
  arr_late_share_24h: {type: number, description: Share of flights from here that landed in the last 24 hours 15 or more minutes late.}
  overdue: {type: integer, unit: flights, description: "Flights 15 minutes to six hours past their scheduled departure that have not left (cancelled ones among them: nobody here knows yet)."}
  overdue_minutes: {type: number, unit: minute, description: Mean time that those flights are past their schedule.}
*/
-- Everything is counted into the first quarter of an hour by whose end it was known, then summed over such quarters; they
-- go on to the newest event anywhere, lest an airport's past depend on when its next flight leaves.
-- A flight is overdue from 15 minutes after its schedule until it leaves, at most until six hours after its schedule.
WITH flights AS (
    SELECT
        origin,
        actual_departure,
        actual_arrival,
        dep_delay,
        arr_delay,
        scheduled_departure AS due,
        scheduled_departure + INTERVAL 15 MINUTES AS overdue_from,
        least(coalesce(actual_departure, 'infinity'), scheduled_departure + INTERVAL 6 HOURS) AS overdue_until
    FROM raw.flights
),
events AS (
    SELECT
        origin, actual_departure AS known_at, 1 AS departed, dep_delay AS dep_delay, (dep_delay >= 15)::INT AS dep_late,
        0 AS arrived, 0 AS arr_delay, 0 AS arr_late, 0 AS overdue, 0 AS overdue_since
    FROM flights WHERE actual_departure IS NOT NULL AND dep_delay IS NOT NULL
    UNION ALL
    SELECT origin, actual_arrival, 0, 0, 0, 1, arr_delay, (arr_delay >= 15)::INT, 0, 0
    FROM flights WHERE actual_arrival IS NOT NULL AND arr_delay IS NOT NULL
    UNION ALL
    SELECT origin, overdue_from, 0, 0, 0, 0, 0, 0, 1, epoch(due)::BIGINT FROM flights WHERE overdue_until > overdue_from
    UNION ALL
    SELECT origin, overdue_until, 0, 0, 0, 0, 0, 0, -1, -epoch(due)::BIGINT FROM flights WHERE overdue_until > overdue_from
),
newest AS (
    SELECT time_bucket(INTERVAL 15 MINUTES, greatest(max(actual_departure), max(actual_arrival))) + INTERVAL 15 MINUTES AS tick
    FROM flights
),
counted AS (
    SELECT
        origin,
        time_bucket(INTERVAL 15 MINUTES, known_at - INTERVAL 1 MICROSECOND) + INTERVAL 15 MINUTES AS event_time,
        sum(departed) AS departed, sum(dep_delay) AS dep_delay, sum(dep_late) AS dep_late,
        sum(arrived) AS arrived, sum(arr_delay) AS arr_delay, sum(arr_late) AS arr_late,
        sum(overdue) AS overdue, sum(overdue_since) AS overdue_since
    FROM events
    GROUP BY ALL
),
quarters AS (
    SELECT origin, unnest(generate_series(min(event_time), any_value(newest.tick), INTERVAL 15 MINUTES)) AS event_time
    FROM counted, newest
    GROUP BY origin
),
summed AS (
    SELECT
        origin,
        event_time,
        sum(departed) OVER h1 AS departures_1h,
        sum(dep_delay) OVER h1 / nullif(sum(departed) OVER h1, 0) AS dep_delay_1h,
        sum(dep_late) OVER h1 / nullif(sum(departed) OVER h1, 0) AS dep_late_share_1h,
        sum(dep_delay) OVER h3 / nullif(sum(departed) OVER h3, 0) AS dep_delay_3h,
        sum(dep_late) OVER h3 / nullif(sum(departed) OVER h3, 0) AS dep_late_share_3h,
        sum(arr_delay) OVER h3 / nullif(sum(arrived) OVER h3, 0) AS arr_delay_3h,
        sum(arr_late) OVER h24 / nullif(sum(arrived) OVER h24, 0) AS arr_late_share_24h,
        sum(overdue) OVER ever AS overdue,
        sum(overdue_since) OVER ever AS overdue_since
    FROM quarters LEFT JOIN counted USING (origin, event_time)
    WINDOW
        h1 AS (PARTITION BY origin ORDER BY event_time ROWS 3 PRECEDING),
        h3 AS (PARTITION BY origin ORDER BY event_time ROWS 11 PRECEDING),
        h24 AS (PARTITION BY origin ORDER BY event_time ROWS 95 PRECEDING),
        ever AS (PARTITION BY origin ORDER BY event_time ROWS UNBOUNDED PRECEDING)
)
SELECT
    origin,
    event_time,
    coalesce(departures_1h, 0) AS departures_1h,
    dep_delay_1h,
    dep_late_share_1h,
    dep_delay_3h,
    dep_late_share_3h,
    arr_delay_3h,
    arr_late_share_24h,
    coalesce(overdue, 0) AS overdue,
    (epoch(event_time)::BIGINT * overdue - overdue_since) / nullif(overdue, 0) / 60 AS overdue_minutes
FROM summed
