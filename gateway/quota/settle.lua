-- One numbered batch of what a gateway did, applied once however often it is sent.
-- ARGV: process, number, acknowledged, now, lease in milliseconds, seconds to keep a day, seconds to remember a
-- process, batch as JSON: charges [day, key, model, input, output, requests, refusals] (more of
-- each), keeps [key, reservation, day, hold], releases [key, reservation, day], and rate windows
-- [name, amount, length]: hits of calls that were refused before anybody asked, refunds of others.
local process, number = ARGV[1], tonumber(ARGV[2])
local refused = unready(process, ARGV[3])
if refused then return refused end
local taken = tonumber(redis.call('GET', process_key(process)) or 0)
if taken >= number then return {'done'} end
if taken < number - 1 then return {'early'} end

local now = microseconds(ARGV[4])
local ends_at, day_seconds = now + tonumber(ARGV[5]) * 1000, ARGV[6]
local batch = cjson.decode(ARGV[8])
local rows, seen, touched = {}, {}, {}

local function touch(day, key_id)
  local name = day .. '|' .. key_id
  if not seen[name] then
    seen[name] = true
    touched[#touched + 1] = {day, key_id}
  end
end

for at, charge in ipairs(batch.charges) do
  local day, key_id, model = charge[1], charge[2], charge[3]
  local counts, row = rows_key(day, key_id), {}
  for field, kind in ipairs({'i', 'o', 'n', 'x'}) do
    row[field] = redis.call('HINCRBY', counts, kind .. model, whole(charge[3 + field]))
  end
  redis.call('HINCRBY', used_key(day), key_id, whole(charge[4] + charge[5]))
  if row[3] + row[4] == charge[6] + charge[7] then  -- The first of this row: it may be of the day.
    redis.call('EXPIRE', counts, day_seconds, 'NX')
    redis.call('EXPIRE', used_key(day), day_seconds, 'NX')
    redis.call('SADD', DAYS, day)
  end
  rows[at] = row
  touch(day, key_id)
end
for _, kept in ipairs(batch.keeps) do
  keep(kept[1], kept[2], kept[3], kept[4], ends_at)
  redis.call('EXPIRE', held_key(kept[3]), day_seconds, 'NX')
  touch(kept[3], kept[1])
end
for _, released in ipairs(batch.releases) do
  release(released[1], released[2])
  touch(released[3], released[1])
end
for _, window in ipairs(batch.hits) do
  local key, debt = window_key(window[1], whole(window[2]), whole(window[3])), nil
  debt = debt_at(key, window[2], now) + window[3]
  if debt <= window[2] * window[3] then set_debt(key, window[2], now, debt) end
end
for _, window in ipairs(batch.refunds) do
  local key = window_key(window[1], whole(window[2]), whole(window[3]))
  set_debt(key, window[2], now, debt_at(key, window[2], now) - window[3])
end

redis.call('SET', process_key(process), whole(number), 'EX', ARGV[7])
local standings = {}
for at, each in ipairs(touched) do
  standings[at] = {
    each[1], each[2],
    tonumber(redis.call('HGET', used_key(each[1]), each[2]) or 0),
    tonumber(redis.call('HGET', held_key(each[1]), each[2]) or 0),
  }
end
return {'ok', rows, standings}
