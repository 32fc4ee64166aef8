-- RESERVE: charge every take of an attempt, or none. gateway/limiter/engine.py says what it means.
--
-- KEYS  1            the hold
--       2 .. n+1     the buckets of the takes
--       n+2 ..       the buckets of the releases
-- ARGV  1            "<n takes> <attempt> <lease_ms> <keep_ms>"; keep_ms: how long a hold is remembered past its lease
--       2 ..         for each bucket key its spec and amount: a take's cost, a release's actual
-- Returns "[<outcome>,<binding>,<wait_ms>,[<level of take 1>, …]]": outcome 0 refused, 1 admitted, 2 settled, 3 expired;
--       binding is the index of the take that refused, from 0, or -1; wait_ms -1: it can never fit.
-- Clock: the store's. Atomic: the whole script; all checks come before the first write. A refusal writes nothing.

local count, attempt, lease_ms, keep_ms = numbers(ARGV[1], '^(%d+) (%d+) (%d+) (%d+)$')
local now = clock()
local text, buckets = load(KEYS[1], 2, now, count)
local hold = hold_of(text, now)

local function answer(outcome, binding, wait)
  return format('[%d,%d,%d,%s]', outcome, binding, wait, levels(buckets, count))
end

if hold.state == 's' then return answer(2, -1, 0) end
if hold.state == 'e' then return answer(3, -1, 0) end
if attempt <= hold.attempt then return answer(1, -1, 0) end

-- A bucket released and taken in one call is two entries of KEYS; from here on they are one row.
local rows = {}
for i = count + 1, #buckets do
  local bucket = buckets[i]
  settle(hold, bucket)
  hold.charges[bucket.name] = nil
  bucket.freed = bucket.kind == 's'
  rows[bucket.name] = bucket
end
for i = 1, count do
  local bucket, released = buckets[i], rows[buckets[i].name]
  if released and released.kind == 's' then
    bucket.used, released.freed = released.used, false
  elseif released and released.changed then
    bucket.used, bucket.rest, bucket.mark = released.used, released.rest, released.mark
    bucket.released = released
    if bucket.kind == 'w' then move_window(bucket, bucket.first, bucket.second) end
  end
end

local binding, longest = -1, 0
for i = 1, count do
  local bucket = buckets[i]
  local cost = bucket.amount
  if bucket.kind == 's' then cost = hold.charges[bucket.name] and 0 or 1 end
  bucket.cost = cost
  local wait = 0
  if bucket.kind ~= 's' or cost == 1 then wait = wait_of(bucket, cost, now) end
  if wait ~= 0 and not bucket.shadow and longest ~= -1 and (wait == -1 or wait > longest) then
    binding, longest = i - 1, wait
  end
end
if binding >= 0 then return answer(0, binding, longest) end

if hold.state == '' then hold.lease_until = now + lease_ms end
hold.attempt = attempt
local id = string.sub(KEYS[1], #prefix + 3)
for i = 1, count do
  local bucket = buckets[i]
  local charged = hold.charges[bucket.name]
  if bucket.kind == 's' then
    bucket.used = bucket.used + bucket.cost
    hold.charges[bucket.name] = { 1, 0 }
    redis.call('ZADD', bucket.key, format('%d', hold.lease_until), id)  -- first: it is denied when memory is short
    redis.call('ZREMRANGEBYSCORE', bucket.key, '-inf', format('%d', now - IDLE_MS))
    redis.call('PEXPIRE', bucket.key, format('%d', lease_ms + keep_ms))
  else
    charge(bucket, bucket.cost)
    if bucket.changed and bucket.released then bucket.released.changed = false end
    local window = bucket.kind == 'w' and bucket.mark or 0
    local before = charged and charged[2] == window and charged[1] or 0
    hold.charges[bucket.name] = { before + bucket.cost, window }
  end
end
save(KEYS[1], hold_text(hold), hold.lease_until - now + keep_ms, buckets, now)
for i = count + 1, #buckets do
  if buckets[i].freed then redis.call('ZREM', buckets[i].key, id) end
end
return answer(1, -1, 0)
