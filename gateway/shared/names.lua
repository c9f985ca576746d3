-- Names of keys in Redis, and the time. A gateway's own name is that of one process's life.
local P = 'gateway:'
local function process_key(process) return P .. 'process:' .. process end
local function used_key(day) return P .. 'used:' .. day end
local function held_key(day) return P .. 'held:' .. day end
local function rows_key(day, key_id) return P .. 'usage:' .. day .. ':' .. key_id end
local function running_key(key_id) return P .. 'running:' .. key_id end
local function holds_key(key_id) return P .. 'holds:' .. key_id end
local DAYS = P .. 'days'
local RESTORING = P .. 'restoring'

-- Microseconds: Redis' own clock, so that gateways need not agree on one. Tests bring theirs.
local function microseconds(given)
  if given ~= '0' then return tonumber(given) end
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- A process that was answered before, and of which Redis knows less than it was told, has lost
-- its memory: restarted empty, or from an old file. Nothing may be counted until all gateways
-- have said what they know.
local function unready(process, acknowledged)
  if acknowledged ~= '0' then
    local known = redis.call('GET', process_key(process))
    if not known or tonumber(known) < tonumber(acknowledged) then return {'lost'} end
  end
  local left = redis.call('PTTL', RESTORING)
  if left > 0 then return {'restoring', left} end
  return nil
end
