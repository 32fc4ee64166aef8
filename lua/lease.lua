-- LEASE: exchange a node's slice of a RATE or WINDOW bucket for a new one. gateway/limiter/engine.py says what that is.
--
-- KEYS  1       the slice of this node and bucket
--       2       the bucket
-- ARGV  1       "<turn> <want> <unused> <lease_ms> <keep_ms>"; unused below zero: used beyond the slice
--       2       the bucket's spec, and as its amount the least that is worth granting
-- Returns "[<granted>,<level>,<wait_ms>]": wait_ms until the least fits if nothing was granted, else 0; -1: at no time.
-- Clock: the store's. Atomic: the whole script; the slice and the row are written by one MSET.

local turn, want, unused, lease_ms, keep_ms = match(ARGV[1], '^(%d+) (%d+) (%-?%d+) (%d+) (%d+)$')
turn, want, unused = tonumber(turn), tonumber(want), tonumber(unused)
lease_ms, keep_ms = tonumber(lease_ms), tonumber(keep_ms)
local now = clock()
local text, buckets = load(KEYS[1], 2, now, 1)
local bucket = buckets[1]
local least = bucket.amount

local function answer(granted)
  local wait = 0
  if granted < least then wait = wait_of(bucket, least, now) end
  return array({ granted, bucket.limit - bucket.used, wait }, 3)
end

local last_turn, had, until_ms, window = -1, 0, 0, bucket.first
if text then
  last_turn, had, until_ms, window = numbers(text, '^(%d+) (%d+) (%d+) (%d+)$')
  if turn == last_turn then return answer(had) end
  if turn < last_turn then return answer(0) end
end

if now >= until_ms then had = 0 end
unused = math.min(unused, had)
if bucket.kind == 'r' or window == bucket.mark then charge(bucket, -unused) end

local granted = math.min(want, bucket.limit - bucket.used)
if granted < least then granted = 0 end  -- least is not below 0, so a bucket in debt grants nothing
charge(bucket, granted)
local counted = bucket.kind == 'w' and bucket.mark or 0
save(KEYS[1], format('%d %d %d %d', turn, granted, now + lease_ms, counted), lease_ms + keep_ms, buckets, now)
return answer(granted)
