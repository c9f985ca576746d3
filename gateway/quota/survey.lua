-- Where the keys of a day stand, some at a time; what gateways that are gone held is given back.
-- ARGV: process, acknowledged, now, day, cursor.
local refused = unready(ARGV[1], ARGV[2])
if refused then return refused end
local now, day = microseconds(ARGV[3]), ARGV[4]
local found = redis.call('HSCAN', used_key(day), ARGV[5], 'COUNT', 500)
local standings, fields = {}, found[2]
local function held_by(key_id)
  return tonumber(redis.call('HGET', held_key(day), key_id) or 0)
end
for at = 1, #fields, 2 do
  local key_id = fields[at]
  if held_by(key_id) > 0 then reap(key_id, now) end
  standings[#standings + 1] = {key_id, tonumber(fields[at + 1]), held_by(key_id)}
end
return {'ok', found[1], standings}
