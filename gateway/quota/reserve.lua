-- One question for all that limits a call: its rate windows, how many of its key run, its quota.
-- Either everything is taken or nothing.
-- ARGV: process, acknowledged, last batch made before it, now, lease in milliseconds, reservation,
-- key id, day, quota or -1, the least that must fit, all that is asked for or -1, most at once or
-- -1, windows.
local process, reservation, key_id, day = ARGV[1], ARGV[6], ARGV[7], ARGV[8]
local quota, least, asked, most = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])

local refused = unready(process, ARGV[2])
if refused then return refused end
-- On one connection a later batch comes later. This question was overtaken by a new connection:
-- it was given up, its release may have been taken already, and nobody would release it again.
if tonumber(redis.call('GET', process_key(process)) or 0) > tonumber(ARGV[3]) then return {'overtaken'} end

local now = microseconds(ARGV[4])
local allowed, debts, changes = look_at_windows(13, now)
if not allowed then return {'window', debts} end

local running = running_key(key_id)
reap(key_id, now)
if most >= 0 and redis.call('ZCARD', running) >= most then return {'concurrency'} end

local known = redis.call('HGET', used_key(day), key_id)
local used = tonumber(known or 0)
local held = tonumber(redis.call('HGET', held_key(day), key_id) or 0)
local hold = 0
if quota >= 0 then
  local remaining = quota - used - held
  if least > remaining then return {'quota', used, held} end
  hold = (asked >= 0 and asked <= remaining) and asked or remaining
end

take_windows(changes, now)
-- The survey finds who holds something among those who have used something, be it nothing.
if not known then redis.call('HSET', used_key(day), key_id, 0) end
hold_anew(key_id, reservation, day, hold, now + tonumber(ARGV[5]) * 1000)
return {'ok', used, held + hold, hold, debts}
