-- RENEW: move the leases of holds, and of the slots they stand in, to now + lease_ms.
--
-- KEYS  for each hold: the hold, then the SLOTS buckets it stands in
-- ARGV  1       "<lease_ms> <keep_ms>"
--       2 ..    for each hold the number of its slots
-- Returns "[<state of hold 1>, …]": 1 open, now and until the new end; 0 unknown, 2 settled: nothing was renewed.
-- Clock: the store's. Atomic: the whole script. An expired hold comes back, its slots counted even above their limit;
-- a slot that the hold is not charged for is left alone.

local lease_ms, keep_ms = numbers(ARGV[1], '^(%d+) (%d+)$')
local now = clock()
local lease_until = format('%d', now + lease_ms)
local holds, at = {}, 1
for i = 2, #ARGV do
  holds[#holds + 1] = KEYS[at]
  at = at + 1 + tonumber(ARGV[i])
end
local texts = redis.call('MGET', unpack(holds))
local states = {}
at = 1
for i, key in ipairs(holds) do
  local hold = hold_of(texts[i], now)
  local slots = tonumber(ARGV[i + 1])
  if hold.state == 'o' or hold.state == 'e' then
    local id = string.sub(key, #prefix + 3)
    for j = at + 1, at + slots do
      if hold.charges[string.sub(KEYS[j], #prefix + 1)] then
        redis.call('ZADD', KEYS[j], lease_until, id)
        redis.call('PEXPIRE', KEYS[j], format('%d', lease_ms + keep_ms))
      end
    end
    hold.lease_until = now + lease_ms
    redis.call('SET', key, hold_text(hold), 'PX', format('%d', lease_ms + keep_ms))
    states[i] = 1
  else
    states[i] = hold.state == 's' and 2 or 0
  end
  at = at + 1 + slots
end
return array(states, #states)
