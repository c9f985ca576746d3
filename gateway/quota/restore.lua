-- Redis has lost its memory: take up what a gateway knows. Several know different things, the one
-- that counted a row last knows it best, and counts only grow: the greatest is right.
-- ARGV: process, acknowledged, now, lease in milliseconds, seconds to keep a day, seconds to
-- remember a process, milliseconds in which the others may do the same, whether this is the last
-- part, part as JSON: rows [day, key, model, input, output, requests, refusals], used [day, key,
-- tokens], keeps [key, reservation, day, hold].
-- Redis has known the process again since this was asked: a new connection has overtaken it, and
-- what the process held then it need not hold any more.
local known = redis.call('GET', process_key(ARGV[1]))
if known and tonumber(known) >= tonumber(ARGV[2]) then return redis.call('PTTL', RESTORING) end
redis.call('SET', RESTORING, '1', 'PX', ARGV[7], 'NX')
local now = microseconds(ARGV[3])
local ends_at, day_seconds = now + tonumber(ARGV[4]) * 1000, ARGV[5]
local part = cjson.decode(ARGV[9])

local function raise(hash, field, value)
  if value > tonumber(redis.call('HGET', hash, field) or 0) then
    redis.call('HSET', hash, field, string.format('%.0f', value))
  end
end

for _, row in ipairs(part.rows) do
  local counts = rows_key(row[1], row[2])
  for field, kind in ipairs({'i', 'o', 'n', 'x'}) do raise(counts, kind .. row[3], row[3 + field]) end
  redis.call('EXPIRE', counts, day_seconds, 'NX')
  redis.call('SADD', DAYS, row[1])
  local total, all = 0, redis.call('HGETALL', counts)
  for at = 1, #all, 2 do
    local kind = string.sub(all[at], 1, 1)
    if kind == 'i' or kind == 'o' then total = total + tonumber(all[at + 1]) end
  end
  raise(used_key(row[1]), row[2], total)
end
for _, used in ipairs(part.used) do
  raise(used_key(used[1]), used[2], used[3])
  redis.call('EXPIRE', used_key(used[1]), day_seconds, 'NX')
end
for _, kept in ipairs(part.keeps) do keep(kept[1], kept[2], kept[3], kept[4], ends_at) end
if ARGV[8] == '1' then
  redis.call('SET', process_key(ARGV[1]), ARGV[2], 'EX', ARGV[6])
end
return redis.call('PTTL', RESTORING)
