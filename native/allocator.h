/* Which block a request gets, and what is given back where the limit is near. As `allocator.py` has it. */

#ifndef AUTOTUNE_ALLOCATOR_H
#define AUTOTUNE_ALLOCATOR_H

#include "segments.h"

static void collect_garbage(Heap *h)
{
    if (!(h->n.threshold > 0) || h->n.limit >= LARGEST || h->n.expandable) return;
    int64_t target = (int64_t)(h->n.threshold * (double)h->n.limit);
    while (h->n.reserved > target) {
        int64_t ages = 0, blocks = 0;
        for (int p = 0; p < POOLS; p += 2)
            for (int32_t i = 0; i < h->pools[p].free.count; i++)
                if (is_whole(h, h->pools[p].free.ids[i])) {
                    ages += h->n.searches - h->blocks[h->pools[p].free.ids[i]].freed_at;
                    blocks++;
                }
        if (!blocks) return;
        double mean = (double)ages / (double)blocks;
        for (int p = 0; p < POOLS; p += 2)
            for (int32_t i = h->pools[p].free.count - 1; i >= 0; i--) {
                int32_t id = h->pools[p].free.ids[i];
                if (is_whole(h, id) && (double)(h->n.searches - h->blocks[id].freed_at) >= mean) release(h, id);
            }
    }
}

static int release_oversize(Heap *h, int pool, int64_t wanted)
{
    if (h->n.max_split >= LARGEST || h->n.expandable) return 0;
    Order *idle = &h->pools[pool].free;
    int64_t enough = wanted > h->n.max_split ? wanted : h->n.max_split, released = 0;
    int32_t at = place(h, idle, SIZES_AND_PLACES, enough, 0);
    if (at < idle->count) {
        release(h, idle->ids[at]);
        return 1;
    }
    while (released < enough && idle->count && h->blocks[idle->ids[idle->count - 1]].size >= h->n.max_split) {
        released += h->blocks[idle->ids[idle->count - 1]].size;
        release(h, idle->ids[idle->count - 1]);
    }
    return released >= enough;
}

static int64_t reach(const Heap *h, int32_t id)
{
    int32_t after = h->blocks[id].after;
    return h->blocks[id].size + (has_state(h, after, UNMAPPED) ? h->blocks[after].size : 0);
}

static int32_t best_fit(Heap *h, int pool, int64_t wanted)
{
    h->n.searches += !is_small(pool);
    Order *idle = &h->pools[pool].free;
    int32_t at = place(h, idle, SIZES_AND_PLACES, wanted, 0);
    if (at == idle->count) return NONE;
    if (h->n.expandable)
        while (at + 1 < idle->count && reach(h, idle->ids[at + 1]) < reach(h, idle->ids[at])) at++;
    int32_t id = idle->ids[at];
    int64_t found = h->blocks[id].size;
    if (found >= h->n.max_split && (wanted < h->n.max_split || found >= wanted + h->n.max_non_split)) return NONE;
    take_at(idle, at);
    h->blocks[id].state = TAKEN;
    return id;
}

enum { DONE, FULL, NO_ROOM }; /* FULL: the limit is reached; NO_ROOM: this process has no memory left */

static int allocate(Heap *h, int64_t wanted, int stream, int32_t *block)
{
    int pool = 2 * stream + (wanted <= SMALL);
    if (reserve(h, 8)) return NO_ROOM;
    int32_t b = best_fit(h, pool, wanted);
    if (b == NONE) {
        collect_garbage(h);
        b = grow_heap(h, pool, wanted);
        if (b == NONE && release_oversize(h, pool, wanted)) b = grow_heap(h, pool, wanted);
        if (b == NONE) {
            if (empty(h) || reserve(h, 8)) return NO_ROOM;
            h->n.retries++;
            b = grow_heap(h, pool, wanted);
        }
        if (b == NONE) return FULL;
    }
    int64_t rest = h->blocks[b].size - wanted;
    int splits = wanted <= SMALL || h->n.expandable ? rest >= MIN_BLOCK : rest > SMALL && wanted < h->n.max_split;
    if (rest && splits) cut(h, b, wanted);
    h->n.allocated += h->blocks[b].size;
    if (h->n.allocated > h->n.peak_allocated) h->n.peak_allocated = h->n.allocated;
    *block = b;
    return DONE;
}

static void let_go(Heap *h, int32_t id)
{
    h->n.allocated -= h->blocks[id].size;
    h->blocks[id].freed_at = h->n.searches;
    give(h, id);
}

#endif
