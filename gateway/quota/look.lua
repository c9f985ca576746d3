-- Where one key stands. ARGV: process, acknowledged, now, day, key id.
local refused = unready(ARGV[1], ARGV[2])
if refused then return refused end
reap(ARGV[5], microseconds(ARGV[3]))
return {
  'ok',
  tonumber(redis.call('HGET', used_key(ARGV[4]), ARGV[5]) or 0),
  tonumber(redis.call('HGET', held_key(ARGV[4]), ARGV[5]) or 0),
}
