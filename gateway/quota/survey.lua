-- Where the keys of a day stand, some at a time. ARGV: process, acknowledged, day, cursor.
local refused = unready(ARGV[1], ARGV[2])
if refused then return refused end
local found = redis.call('HSCAN', used_key(ARGV[3]), ARGV[4], 'COUNT', 500)
local standings, fields = {}, found[2]
for at = 1, #fields, 2 do
  local held = redis.call('HGET', held_key(ARGV[3]), fields[at]) or 0
  standings[#standings + 1] = {fields[at], tonumber(fields[at + 1]), tonumber(held)}
end
return {'ok', found[1], standings}
