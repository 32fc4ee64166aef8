/* The schedule of an open loop: when the next request is due, and the queue of those for which no connection is free.
 *
 * The queue keeps due times, first come first served, and is never cut: what waits in it is the latency to be measured.
 */
#ifndef BENCH_ARRIVALS_H
#define BENCH_ARRIVALS_H

#include "common.h"

#include <math.h>

static uint64_t arrivals_rng = 1; /* xorshift64, never 0: the same arrivals for the same seed */

/* To the next arrival, in ns: always the mean, or exponential, which makes the arrivals a Poisson process. */
static inline uint64_t gap_to_next(double rate, bool fixed) {
    double mean = (double)NS_PER_S / rate;
    if (fixed) return (uint64_t)mean;
    arrivals_rng ^= arrivals_rng << 13, arrivals_rng ^= arrivals_rng >> 7, arrivals_rng ^= arrivals_rng << 17;
    return (uint64_t)(-log(((double)(arrivals_rng >> 11) + 0.5) / 9007199254740992.0) * mean);
}

static struct { /* a ring */
    uint64_t *due;
    size_t head, count, capacity;
} backlog;

static inline void backlog_push(uint64_t due) {
    if (backlog.count == backlog.capacity) {
        size_t bigger = backlog.capacity ? backlog.capacity * 2 : 1024;
        uint64_t *copy = must(malloc(bigger * sizeof *copy));
        for (size_t i = 0; i < backlog.count; i++) copy[i] = backlog.due[(backlog.head + i) % backlog.capacity];
        free(backlog.due);
        backlog.due = copy;
        backlog.head = 0;
        backlog.capacity = bigger;
    }
    backlog.due[(backlog.head + backlog.count++) % backlog.capacity] = due;
}

static inline uint64_t backlog_pop(void) {
    uint64_t due = backlog.due[backlog.head];
    backlog.head = (backlog.head + 1) % backlog.capacity;
    backlog.count--;
    return due;
}

#endif
