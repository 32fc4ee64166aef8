/* A log-linear histogram: 64 buckets per power of two, so a value is known to 1/64 = 1.6 % from 1 ns to 18 minutes.
 *
 * bench/speed/histogram.py implements the same bucket rule and merges what is printed here; a test holds them equal.
 * A quantile is the upper edge of its bucket (never flattering), but never above the exact maximum.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include "common.h"

#include <math.h>

#define SUB_BITS 6
#define SUB (1u << SUB_BITS)
#define MAX_BITS 40
#define BUCKETS ((MAX_BITS - SUB_BITS + 1) * SUB)

struct histogram {
    uint64_t counts[BUCKETS], total, max, sum;
};

static inline uint32_t bucket_of(uint64_t ns) {
    if (ns < SUB) return (uint32_t)ns;
    if (ns >= 1ull << MAX_BITS) return BUCKETS - 1;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(ns) - SUB_BITS;
    return (shift + 1) * SUB + (uint32_t)((ns >> shift) & (SUB - 1));
}

static inline uint64_t bucket_upper(uint32_t bucket) {
    if (bucket < SUB) return bucket;
    uint32_t shift = bucket / SUB - 1;
    return ((uint64_t)(SUB + bucket % SUB + 1) << shift) - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t ns) {
    h->counts[bucket_of(ns)]++;
    h->total++;
    h->sum += ns;
    if (ns > h->max) h->max = ns;
}

static inline uint64_t histogram_quantile(const struct histogram *h, double q) {
    uint64_t rank = (uint64_t)ceil(q * (double)h->total), seen = 0;
    if (!h->total) return 0;
    if (!rank) rank = 1;
    for (uint32_t i = 0; i < BUCKETS; i++)
        if ((seen += h->counts[i]) >= rank) return bucket_upper(i) < h->max ? bucket_upper(i) : h->max;
    return h->max;
}

/* `"name":{"count":…,"mean_us":…,"p50_us":…,…,"max_us":…,"max_ns":…,"buckets":[[index,count],…]}` */
static inline void histogram_print(const char *name, const struct histogram *h) {
    static const struct {
        const char *name;
        double q;
    } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}};
    printf("\"%s\":{\"count\":%lu,\"mean_us\":%.1f", name, h->total,
           h->total ? (double)h->sum / (double)h->total / 1e3 : 0.0);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        printf(",\"%s_us\":%.1f", quantiles[i].name, (double)histogram_quantile(h, quantiles[i].q) / 1e3);
    printf(",\"max_us\":%.1f,\"max_ns\":%lu,\"sum_ns\":%lu,\"buckets\":[", (double)h->max / 1e3, h->max, h->sum);
    const char *comma = "";
    for (uint32_t i = 0; i < BUCKETS; i++) {
        if (!h->counts[i]) continue;
        printf("%s[%u,%lu]", comma, i, h->counts[i]);
        comma = ",";
    }
    printf("]}");
}

#endif
