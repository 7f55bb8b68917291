/*
description: Weather at the airport of departure, as last reported.
owner: data-platform@example.com
entity: [origin]
ttl: 4 hours
tags: {domain: weather, refresh: hourly}
columns:
  temp: {type: number, unit: °F, description: Air temperature.}
  dewp: {type: number, unit: °F, description: Dew point.}
  wind_speed: {type: number, unit: mph, description: Wind speed.}
  precip_3h: {type: number, unit: inch, description: Precipitation of the last three hours.}
  pressure: {type: number, unit: mbar, description: Sea-level pressure.}
  pressure_change_3h: {type: number, unit: mbar, description: Change of the pressure over three hours.}
  visib: {type: number, unit: mile, description: Visibility.}
  visib_min_3h: {type: number, unit: mile, description: Lowest visibility of the last three hours.}
*/
-- A report is stamped with the full hour but observed up to 51 minutes into it: it counts from the next hour on.
SELECT
    origin,
    observed_at + INTERVAL 1 HOUR AS event_time,
    temp,
    dewp,
    wind_speed,
    round(sum(precip) OVER recent, 2) AS precip_3h,
    pressure,
    pressure - first_value(pressure) OVER recent AS pressure_change_3h,
    visib,
    min(visib) OVER recent AS visib_min_3h
FROM raw.weather
WINDOW recent AS (
    PARTITION BY origin ORDER BY observed_at RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW
)
