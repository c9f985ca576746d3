-- One question for all that limits a call: its rate windows, how many of its key run, its quota.
-- Either everything is taken or nothing.
-- ARGV: process, acknowledged, now, lease in milliseconds, reservation, key id, day, quota or -1,
-- the least that must fit, all that is asked for or -1, most at once or -1, windows.
local process, reservation, key_id, day = ARGV[1], ARGV[5], ARGV[6], ARGV[7]
local quota, least, asked, most = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])

local refused = unready(process, ARGV[2])
if refused then return refused end

local now = microseconds(ARGV[3])
local allowed, debts, changes = look_at_windows(12, now)
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
hold_anew(key_id, reservation, day, hold, now + tonumber(ARGV[4]) * 1000)
return {'ok', used, held + hold, hold, debts}
