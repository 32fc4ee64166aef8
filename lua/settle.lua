-- SETTLE: apply what a hold really used, once. gateway/limiter/engine.py says what it means.
--
-- KEYS  1       the hold
--       2 ..    its buckets
-- ARGV  1       "<keep_ms>": how long the mark that it is settled is kept, which must outlive any replay
--       2 ..    for each bucket its spec and the actual amount
-- Returns "[<found>,[<level of bucket 1>, …]]": found 0 unknown, 1 open, 2 settled before, 3 expired.
-- Clock: the store's. Atomic: the whole script. The mark and all rows are written by one MSET.

local keep_ms = numbers(ARGV[1], '^(%d+)$')
local now = clock()
local text, buckets = load(KEYS[1], 2, now, #KEYS)
local hold = hold_of(text, now)
if hold.state == 's' then return format('[2,%s]', levels(buckets, #buckets)) end

for _, bucket in ipairs(buckets) do settle(hold, bucket) end
save(KEYS[1], 's', keep_ms, buckets, now)
local id = string.sub(KEYS[1], #prefix + 3)
for _, bucket in ipairs(buckets) do
  if bucket.kind == 's' then redis.call('ZREM', bucket.key, id) end
end
local found = { [''] = 0, o = 1, e = 3 }
return format('[%d,%s]', found[hold.state], levels(buckets, #buckets))
