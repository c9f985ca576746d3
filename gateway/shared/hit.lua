-- Count one request in every window, or in none if any of them refuses it.
-- ARGV: now, windows.
local now = microseconds(ARGV[1])
local allowed, debts, changes = look_at_windows(2, now)
if allowed then take_windows(changes, now) end
return {allowed and 1 or 0, debts}
