-- GCRA, as gateway/ratelimit.py has it, in whole numbers: a window's value is a debt at a time.
-- Debts are in microseconds / amount, in which the price of a hit (the window's length) is whole.
local function window_key(name, amount, length)
  return P .. 'rate:' .. name .. ':' .. amount .. '/' .. length
end

local function debt_at(key, amount, now)
  local stored = redis.call('GET', key)
  if not stored then return 0 end
  local at, debt = string.match(stored, '^(%d+):(%d+)$')
  local elapsed = math.max(now - tonumber(at), 0)
  return math.max(tonumber(debt) - elapsed * amount, 0)
end

local function set_debt(key, amount, now, debt)
  if debt <= 0 then
    redis.call('DEL', key)
  else
    local value = string.format('%.0f:%.0f', now, debt)
    redis.call('SET', key, value, 'PX', math.ceil(debt / (amount * 1000)) + 1000)
  end
end

-- ARGV[first..]: their number, then name, amount and length of each. Gives whether all allow one
-- more, the debt of each after it (before it, where it refuses), and what to write.
local function look_at_windows(first, now)
  local count, allowed, debts, changes = tonumber(ARGV[first]), true, {}, {}
  for number = 1, count do
    local at = first + 3 * (number - 1)
    local name, amount, length = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local key = window_key(name, ARGV[at + 2], ARGV[at + 3])
    local debt = debt_at(key, amount, now)
    if debt + length > length * amount then
      allowed = false
      debts[number] = {0, debt}
    else
      debts[number] = {1, debt + length}
      changes[#changes + 1] = {key, amount, debt + length}
    end
  end
  return allowed, debts, changes
end

local function take_windows(changes, now)
  for _, change in ipairs(changes) do set_debt(change[1], change[2], now, change[3]) end
end
