-- The arithmetic of buckets and the shape of what is stored; it stands in front of every script of this folder.
--
-- It is gateway/limiter/bucket.py in a language without large integers: Lua 5.1 (Redis, Valkey) counts in doubles, Lua
-- 5.4 (Dragonfly) in 64-bit integers that wrap. No value here reaches 2^53 at any step; gateway/limiter/spec.py has the
-- bounds and the proof. floor(a / b) is exact for integers below 2^53 in both. Numbers leave by "%d", since a double is
-- otherwise written as 1e+15; the rows of tests/corpus/bucket hold this file and bucket.py together.
--
-- Keys, all with one tag so that a cluster and Dragonfly keep them together; 1 is the version of this layout:
--   {gw:<domain>}:1:h:<hold>          a hold: "o <attempt> <lease_until_ms>[ <bucket> <reserved> <window_ms>]*", or "s"
--   {gw:<domain>}:1:r:<name>          a RATE bucket: "<used> <rest> <mark_ms>"
--   {gw:<domain>}:1:w:<name>          a WINDOW bucket: "<used> <end_ms> <start_ms>"
--   {gw:<domain>}:1:s:<name>          a SLOTS bucket: sorted set, hold -> lease_until_ms; counted while that is ahead
--   {gw:<domain>}:1:l:<node>:<bucket> a node's slice: "<turn> <granted> <until_ms> <window_ms>"
-- where <bucket> is a kind's letter and a name, as in a key. Names hold no space; whoever calls has encoded them.
--
-- A spec arrives as "<kind><shadow> <limit> <amount> <period_ms>" (r), "<kind><shadow> <limit> <start_ms> <end_ms>" (w)
-- or "<kind><shadow> <limit> 0 0" (s), with the amount of the charge behind it. Clock: the store's own TIME, in ms.

local floor, match, format = math.floor, string.match, string.format
local unpack = table.unpack or unpack

local MAX_RATE_USED = 2000000000000
local MAX_WINDOW_USED = 4000000000000000
local MAX_WAIT_MS = 316224000000
local MAX_AHEAD_MS = 60000   -- how far a node's clock may be ahead of the store's when a window begins
local SLOT_WAIT_MS = 1000
local IDLE_MS = 60000        -- how long a row is kept after it has become worth nothing
local MAX_TTL_MS = 34560000000

local prefix = match(KEYS[1], '^({[^}]*}:1:)')

-- The store's clock, ms since the epoch. Some stores have answered zeros from within a script: better none than 1970.
local function clock()
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
  if now < 1000000000000 then error('store_clock: TIME within a script is not the time; use a newer store', 0) end
  return now
end

local function numbers(text, shape)
  local a, b, c, d = match(text, shape)
  return tonumber(a), tonumber(b), tonumber(c), tonumber(d)
end

-- floor((a * b + r) / c) and its remainder, for a, b, r < 2^32 and max(a, r) < c < 2^32: in halves of 16 bits.
local function product_over(a, b, r, c)
  local high = floor(b / 65536)
  local left = a * high
  local quotient = floor(left / c)
  left = (left - quotient * c) * 65536 + a * (b - high * 65536) + r
  local more = floor(left / c)
  return quotient * 65536 + more, left - more * c
end

-- As product_over with r = 0, for a < c < 2^40 and b < 2^32: in three parts of 11 bits.
local function long_product_over(a, b, c)
  local quotient, left = 0, 0
  for _, part in ipairs({ floor(b / 4194304), floor(b / 2048) % 2048, b % 2048 }) do
    left = left * 2048 + a * part
    local more = floor(left / c)
    quotient, left = quotient * 2048 + more, left - more * c
  end
  return quotient, left
end

-- A RATE row brought up to date: bucket.refilled.
local function refilled(used, rest, mark, now, amount, period)
  if rest >= period then rest = 0 end
  if now <= mark then return used, rest, mark end
  local elapsed = now - mark
  local periods = floor(elapsed / period)
  if used == 0 or periods > floor(used / amount) then return 0, 0, now end
  local within, whole = elapsed - periods * period, floor(amount / period)
  local gained, left = product_over(within, amount - whole * period, rest, period)
  gained = gained + within * whole + periods * amount
  if gained >= used then return 0, 0, now end
  return used - gained, left, now
end

-- How long until `missing` > 0 is refilled: the last lines of bucket.wait_ms.
local function refill_wait(missing, rest, mark, now, amount, period)
  local periods = floor(missing / amount)
  if periods > floor(MAX_WAIT_MS / period) then return MAX_WAIT_MS end
  local quotient, left = long_product_over(missing - periods * amount, period, amount)
  local wait = periods * period + quotient - floor((rest - left) / amount)
  if mark > now then wait = wait + mark - now end
  return math.min(wait, MAX_WAIT_MS)
end

-- A WINDOW row in the window that counts: bucket.in_window.
local function move_window(bucket, start, window_end)
  if start > bucket.mark then
    bucket.used, bucket.rest, bucket.mark = 0, window_end, start
  elseif start == bucket.mark then
    bucket.rest = window_end
  else
    bucket.rest = math.max(bucket.rest, window_end)
  end
end

-- A bucket as it stands: the spec and amount it was asked with, and its row. `text` is what is stored, or false.
local function bucket_of(key, asked, text, now)
  local kind, shadow, limit, first, second, amount = match(asked, '^(%l)(%d) (%d+) (%d+) (%d+) (%-?%d+)$')
  local bucket = {
    key = key, name = string.sub(key, #prefix + 1), kind = kind, shadow = shadow == '1',
    limit = tonumber(limit), amount = tonumber(amount), used = 0, rest = 0, mark = 0,
  }  -- first and second: amount and period_ms of a RATE, start_ms and end_ms of a WINDOW
  if kind == 's' then
    bucket.used = redis.call('ZCOUNT', key, format('(%d', now), '+inf')
    return bucket
  end
  first, second = tonumber(first), tonumber(second)
  bucket.first, bucket.second = first, second
  if text then bucket.used, bucket.rest, bucket.mark = numbers(text, '^(%d+) (%d+) (%d+)$') end
  if kind == 'r' then
    bucket.used, bucket.rest, bucket.mark = refilled(bucket.used, bucket.rest, bucket.mark, now, first, second)
    return bucket
  end
  if first > now + MAX_AHEAD_MS then
    error('window_ahead: the window begins after the store\'s time; set the clocks of node and store', 0)
  end
  move_window(bucket, first, second)
  return bucket
end

-- One MGET for `own` (the hold, or a slice) and all buckets KEYS[first..], asked for in ARGV[first..]: the text of own,
-- and the buckets in order. A sorted set reads as nothing there, which is what a SLOTS bucket needs. A bucket may stand
-- once among the first `count` and once behind them: charged twice, it would lose a charge.
local function load(own, first, now, count)
  local texts = redis.call('MGET', own, unpack(KEYS, first))
  local buckets, seen = {}, {}
  for i = first, #KEYS do
    local key, at = KEYS[i], i - first + 1
    if at == count + 1 then seen = {} end
    if seen[key] then error('twice: ' .. key .. ' stands twice in one call', 0) end
    seen[key] = true
    buckets[at] = bucket_of(key, ARGV[i], texts[at + 1], now)
  end
  return texts[1], buckets
end

local function charge(bucket, amount)
  if amount == 0 then return end
  bucket.changed = true
  bucket.used = math.max(bucket.used + amount, 0)
  if bucket.kind == 'r' then
    bucket.used = math.min(bucket.used, MAX_RATE_USED)
    if bucket.used == 0 then bucket.rest = 0 end
  else
    bucket.used = math.min(bucket.used, MAX_WINDOW_USED)
  end
end

-- bucket.wait_ms
local function wait_of(bucket, cost, now)
  if cost > bucket.limit then return -1 end
  local missing = bucket.used + cost - bucket.limit
  if missing <= 0 then return 0 end
  if bucket.kind == 's' then return SLOT_WAIT_MS end
  if bucket.kind == 'w' then return math.max(bucket.rest - now, 1) end
  return refill_wait(missing, bucket.rest, bucket.mark, now, bucket.first, bucket.second)
end

-- How long a row is worth keeping: a RATE until it is full, a WINDOW until it is over.
local function ttl_of(bucket, now)
  if bucket.kind == 'w' then return math.min(math.max(bucket.rest - now, 0) + IDLE_MS, MAX_TTL_MS) end
  local periods = floor(bucket.used / bucket.first) + 1
  if periods > floor(MAX_TTL_MS / bucket.second) then return MAX_TTL_MS end
  return periods * bucket.second + math.max(bucket.mark - now, 0) + IDLE_MS
end

-- Write `own` and every changed row by one MSET, which a store short of memory does wholly or not at all, then say how
-- long to keep each.
local function save(own, text, ttl, buckets, now)
  local written, size = { own, text }, 2
  for i = 1, #buckets do
    local bucket = buckets[i]
    if bucket.changed then
      written[size + 1] = bucket.key
      written[size + 2] = format('%d %d %d', bucket.used, bucket.rest, bucket.mark)
      size = size + 2
    end
  end
  redis.call('MSET', unpack(written))
  redis.call('PEXPIRE', own, format('%d', ttl))
  for i = 1, #buckets do
    local bucket = buckets[i]
    if bucket.changed then redis.call('PEXPIRE', bucket.key, format('%d', ttl_of(bucket, now))) end
  end
end

-- A hold from its text: state ('' unknown, 'o' open, 'e' expired, 's' settled), attempt, lease_until, and its charges
-- by bucket: {reserved, window_ms}.
local function hold_of(text, now)
  if not text then return { state = '', attempt = -1, charges = {} } end
  if text == 's' then return { state = 's', charges = {} } end
  local attempt, lease_until, rest = match(text, '^o (%d+) (%d+)(.*)$')
  local hold = { state = 'o', attempt = tonumber(attempt), lease_until = tonumber(lease_until), charges = {} }
  if now >= hold.lease_until then hold.state = 'e' end
  for bucket, reserved, window in string.gmatch(rest, ' (%S+) (%d+) (%d+)') do
    hold.charges[bucket] = { tonumber(reserved), tonumber(window) }
  end
  return hold
end

local function hold_text(hold)
  local text = format('o %d %d', hold.attempt, hold.lease_until)
  for bucket, charged in pairs(hold.charges) do
    text = format('%s %s %d %d', text, bucket, charged[1], charged[2])
  end
  return text
end

-- Settle one bucket of a hold at bucket.amount: hold.owed and hold.belongs. The slot itself is freed by the caller.
local function settle(hold, bucket)
  local charged = hold.charges[bucket.name]
  if bucket.kind == 's' then
    if charged then bucket.used = math.max(bucket.used - (hold.state == 'o' and 1 or 0), 0) end
    return
  end
  local window = charged and charged[2] or bucket.first
  if bucket.kind == 'r' or window == bucket.mark then charge(bucket, bucket.amount - (charged and charged[1] or 0)) end
end

-- A JSON array of whole numbers, each by "%d": what answers are made of.
local function array(numbers_, count)
  if count == 0 then return '[]' end
  return format('[%d' .. string.rep(',%d', count - 1) .. ']', unpack(numbers_, 1, count))
end

local function levels(buckets, count)
  local found = {}
  for i = 1, count do found[i] = buckets[i].limit - buckets[i].used end
  return array(found, count)
end
