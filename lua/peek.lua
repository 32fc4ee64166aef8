-- PEEK: how buckets stand, and when so much of each would fit.
--
-- KEYS  1 ..    the buckets
-- ARGV  1 ..    for each its spec and the amount asked about
-- Returns "[[<level>,<wait_ms>], …]" for each bucket: wait_ms 0 for now, -1 for never.
-- Clock: the store's. Atomic: the whole script. Writes nothing.

local now = clock()
local _, buckets = load(KEYS[1], 1, now, #KEYS)
local found = {}
for _, bucket in ipairs(buckets) do
  found[#found + 1] = array({ bucket.limit - bucket.used, wait_of(bucket, bucket.amount, now) }, 2)
end
return '[' .. table.concat(found, ',') .. ']'
