-- Running requests of a key: when the lease of each ends, and what it holds of which day.
local function whole(number) return string.format('%.0f', number) end

local function unhold(key_id, reservation)
  local stored = redis.call('HGET', holds_key(key_id), reservation)
  if not stored then return end
  local day, hold = string.match(stored, '^([^|]*)|(%d+)$')
  redis.call('HDEL', holds_key(key_id), reservation)
  redis.call('HINCRBY', held_key(day), key_id, '-' .. hold)
end

local function release(key_id, reservation)
  unhold(key_id, reservation)
  redis.call('ZREM', running_key(key_id), reservation)
end

-- Those whose gateway has not renewed them: it is gone. What they were charged stays charged.
local function reap(key_id, now)
  local gone = redis.call('ZRANGEBYSCORE', running_key(key_id), '-inf', now, 'LIMIT', 0, 100)
  for _, reservation in ipairs(gone) do release(key_id, reservation) end
end

local function hold_anew(key_id, reservation, day, hold, ends_at)
  if hold > 0 then
    redis.call('HSET', holds_key(key_id), reservation, day .. '|' .. whole(hold))
    redis.call('HINCRBY', held_key(day), key_id, whole(hold))
  end
  redis.call('ZADD', running_key(key_id), whole(ends_at), reservation)
end

-- Let a reservation hold so much until then, also one that Redis has forgotten.
local function keep(key_id, reservation, day, hold, ends_at)
  if redis.call('HGET', holds_key(key_id), reservation) == day .. '|' .. whole(hold) then
    redis.call('ZADD', running_key(key_id), whole(ends_at), reservation)
    return
  end
  unhold(key_id, reservation)
  hold_anew(key_id, reservation, day, hold, ends_at)
end
