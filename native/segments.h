/* Memory taken from the card and given back: segments, and pages of expandable ones. As `allocator.py` has it. */

#ifndef AUTOTUNE_SEGMENTS_H
#define AUTOTUNE_SEGMENTS_H

#include "blocks.h"

static int64_t up(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

static int64_t addresses(Heap *h, int64_t count, int64_t multiple)
{
    int64_t start = up(h->n.next_address, multiple);
    h->n.next_address = start + count;
    return start;
}

static int has(const Heap *h, int64_t more) { return h->n.reserved + more <= h->n.limit; }

static void count_reserved(Heap *h, int64_t more)
{
    h->n.reserved += more;
    if (h->n.reserved > h->n.peak_reserved) h->n.peak_reserved = h->n.reserved;
}

static void release(Heap *h, int32_t id)
{
    take(h, id);
    h->n.reserved -= h->blocks[id].size;
    drop(h, id);
}

static int64_t unmap(Heap *h, int32_t id)
{
    int pool = h->blocks[id].pool;
    Pool *mine = &h->pools[pool];
    int64_t page = page_bytes(h, pool), start = up(h->blocks[id].address, page);
    int64_t end = (h->blocks[id].address + h->blocks[id].size) / page * page;
    if (start >= end) return 0;
    take(h, id);
    if (start > h->blocks[id].address) {
        int32_t front = id;
        id = split(h, front, start - h->blocks[front].address, TAKEN);
        h->blocks[front].state = FREE;
        insert(h, &mine->free, SIZES_AND_PLACES, front);
    }
    if (end < h->blocks[id].address + h->blocks[id].size) cut(h, id, end - h->blocks[id].address);
    if (has_state(h, h->blocks[id].before, UNMAPPED)) {
        take_out(h, &mine->unmapped, PLACES, h->blocks[id].before);
        absorb_before(h, id);
    }
    if (has_state(h, h->blocks[id].after, UNMAPPED)) {
        take_out(h, &mine->unmapped, PLACES, h->blocks[id].after);
        absorb_after(h, id);
    }
    h->blocks[id].state = UNMAPPED;
    if (is_whole(h, id)) drop(h, id); /* nothing of its segment is mapped, and its addresses go too */
    else insert(h, &mine->unmapped, PLACES, id);
    return end - start;
}

/* Gives back every segment, or page, that is wholly free. */
static int empty(Heap *h)
{
    for (int p = 0; p < POOLS; p++) {
        Order *idle = &h->pools[p].free;
        if (reserve(h, 2 * idle->count)) return -1;
        int32_t count = idle->count, *ids = malloc(((size_t)count + 1) * sizeof(int32_t));
        if (!ids) return -1;
        memcpy(ids, idle->ids, (size_t)count * sizeof(int32_t));
        for (int32_t i = 0; i < count; i++) {
            if (h->n.expandable) h->n.reserved -= unmap(h, ids[i]);
            else if (is_whole(h, ids[i])) release(h, ids[i]);
        }
        free(ids);
    }
    return 0;
}

static int32_t room(Heap *h, int pool, int64_t size)
{
    const Order *unmapped = &h->pools[pool].unmapped;
    for (int32_t i = 0; i < unmapped->count; i++) {
        int32_t start = unmapped->ids[i];
        if (has_state(h, h->blocks[start].before, FREE)) start = h->blocks[start].before;
        int64_t there = 0;
        for (int32_t b = start; b != NONE && h->blocks[b].state != TAKEN && there < size; b = h->blocks[b].after)
            there += h->blocks[b].size;
        if (there >= size) return start;
    }
    return NONE;
}

static int32_t grow_pages(Heap *h, int pool, int64_t wanted)
{
    int64_t page = page_bytes(h, pool);
    int32_t b = room(h, pool, wanted);
    if (b == NONE) {
        int64_t count = page * PAGES > up(wanted, page) ? page * PAGES : up(wanted, page);
        b = make(h, pool, addresses(h, count, page), count, UNMAPPED);
        insert(h, &h->pools[pool].unmapped, PLACES, b);
    }
    int64_t held = h->blocks[b].state == UNMAPPED ? 0 : h->blocks[b].size;
    while (held < wanted) {
        int32_t growing = h->blocks[b].state == UNMAPPED ? b : h->blocks[b].after;
        int64_t pages = up(wanted - held, page);
        if (pages > h->blocks[growing].size) pages = h->blocks[growing].size;
        if (!has(h, pages)) return NONE;
        count_reserved(h, pages);
        take_out(h, &h->pools[pool].unmapped, PLACES, growing);
        if (pages < h->blocks[growing].size)
            insert(h, &h->pools[pool].unmapped, PLACES, split(h, growing, pages, UNMAPPED));
        give(h, growing);
        b = growing;
        held = h->blocks[b].size;
    }
    take(h, b);
    return b;
}

static int64_t segment_bytes(const Heap *h, int64_t wanted)
{
    return wanted <= SMALL ? SMALL_SEGMENT : wanted < MIN_LARGE ? h->n.large_segment : up(wanted, ROUND_LARGE);
}

static int32_t grow_heap(Heap *h, int pool, int64_t wanted)
{
    int64_t opened = segment_bytes(h, wanted);
    if (!has(h, opened)) return NONE;
    if (h->n.expandable) return grow_pages(h, pool, wanted);
    count_reserved(h, opened);
    return make(h, pool, addresses(h, opened, SMALL_SEGMENT), opened, TAKEN);
}

#endif
