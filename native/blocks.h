/* Blocks of device memory: split, merged, and kept in order. As `allocator_blocks.py` has it. */

#ifndef AUTOTUNE_BLOCKS_H
#define AUTOTUNE_BLOCKS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FREE, TAKEN, UNMAPPED };
enum { STREAMS = 3, POOLS = 2 * STREAMS, TABLES = 2, NONE = -1 };
enum { SIZES_AND_PLACES = 0, PLACES = 1 }; /* what an order goes by */

#define MIB ((int64_t)1 << 20)
#define MIN_BLOCK 512
#define SMALL MIB
#define SMALL_SEGMENT (2 * MIB)
#define MIN_LARGE (10 * MIB)
#define ROUND_LARGE (2 * MIB)
#define PAGES 65536
#define FIRST_ADDRESS (MIN_BLOCK * (int64_t)4096)
#define MOST_SLOTS (1 << 24)
#define LARGEST ((int64_t)1 << 50) /* of a request: sums of many stay below 2**63 */

typedef struct {
    int64_t size, address, freed_at;
    int32_t before, after; /* its neighbours in the segment */
    int16_t pool, state;
} Block;

typedef struct {
    int32_t *ids, count;
} Order;

typedef struct {
    Order free, unmapped; /* by size and then address; by address */
} Pool;

typedef struct {
    int64_t large_segment, max_split, max_non_split, limit; /* LARGEST and more: there is none */
    double threshold;
    int expandable;
    int64_t next_address, searches;
    int64_t allocated, peak_allocated, reserved, peak_reserved, retries;
    int32_t count, spares, slots[TABLES];
} Numbers;

typedef struct {
    Numbers n;
    int32_t room;   /* for blocks, in each of the arrays below but `live` */
    Block *blocks;
    int32_t *spare; /* numbers of blocks that are gone */
    Pool pools[POOLS];
    int32_t *live[TABLES]; /* the block in each slot; of the call's, of the segment's */
} Heap;

/* Blocks and their orders */

/* Makes an array longer; -1 if this process has no memory for it. */
static int grow(void **array, int64_t count, size_t item)
{
    void *larger = realloc(*array, (size_t)count * item);
    if (!larger) return -1;
    *array = larger;
    return 0;
}

/* Room for so many more blocks, so that nothing below can fail. */
static int reserve(Heap *h, int32_t more)
{
    if (h->n.count - h->n.spares + more <= h->room) return 0;
    int32_t room = 2 * h->room + more + 256;
    if (grow((void **)&h->blocks, room, sizeof(Block)) || grow((void **)&h->spare, room, sizeof(int32_t))) return -1;
    for (int p = 0; p < POOLS; p++)
        if (grow((void **)&h->pools[p].free.ids, room, sizeof(int32_t)) ||
            grow((void **)&h->pools[p].unmapped.ids, room, sizeof(int32_t)))
            return -1;
    h->room = room;
    return 0;
}

static int32_t make(Heap *h, int pool, int64_t address, int64_t size, int state)
{
    int32_t id = h->n.spares ? h->spare[--h->n.spares] : h->n.count++;
    h->blocks[id] = (Block){size, address, 0, NONE, NONE, (int16_t)pool, (int16_t)state};
    return id;
}

static void drop(Heap *h, int32_t id) { h->spare[h->n.spares++] = id; }

/* Where a block of this size and address is, or would be. */
static int32_t place(const Heap *h, const Order *order, int by, int64_t size, int64_t address)
{
    int32_t low = 0, high = order->count;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        const Block *b = &h->blocks[order->ids[middle]];
        int less = by == PLACES || b->size == size ? b->address < address : b->size < size;
        if (less) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void insert(Heap *h, Order *order, int by, int32_t id)
{
    int32_t at = place(h, order, by, h->blocks[id].size, h->blocks[id].address);
    memmove(order->ids + at + 1, order->ids + at, (size_t)(order->count - at) * sizeof(int32_t));
    order->ids[at] = id;
    order->count++;
}

static void take_at(Order *order, int32_t at)
{
    order->count--;
    memmove(order->ids + at, order->ids + at + 1, (size_t)(order->count - at) * sizeof(int32_t));
}

static void take_out(Heap *h, Order *order, int by, int32_t id)
{
    take_at(order, place(h, order, by, h->blocks[id].size, h->blocks[id].address));
}

static Pool *pool_of(Heap *h, int32_t id) { return &h->pools[h->blocks[id].pool]; }

static int is_small(int pool) { return pool & 1; }

static int64_t page_bytes(const Heap *h, int pool) { return is_small(pool) ? SMALL_SEGMENT : h->n.large_segment; }

static int is_whole(const Heap *h, int32_t id) { return h->blocks[id].before == NONE && h->blocks[id].after == NONE; }

static void take(Heap *h, int32_t id)
{
    take_out(h, &pool_of(h, id)->free, SIZES_AND_PLACES, id);
    h->blocks[id].state = TAKEN;
}

static void absorb_before(Heap *h, int32_t id)
{
    int32_t gone = h->blocks[id].before, before = h->blocks[gone].before;
    h->blocks[id].size += h->blocks[gone].size;
    h->blocks[id].address = h->blocks[gone].address;
    h->blocks[id].before = before;
    if (before != NONE) h->blocks[before].after = id;
    drop(h, gone);
}

static void absorb_after(Heap *h, int32_t id)
{
    int32_t gone = h->blocks[id].after, after = h->blocks[gone].after;
    h->blocks[id].size += h->blocks[gone].size;
    h->blocks[id].after = after;
    if (after != NONE) h->blocks[after].before = id;
    drop(h, gone);
}

static int has_state(const Heap *h, int32_t id, int state) { return id != NONE && h->blocks[id].state == state; }

static void give(Heap *h, int32_t id)
{
    Block *b = &h->blocks[id];
    Order *idle = &pool_of(h, id)->free;
    if (has_state(h, b->before, FREE)) {
        take_out(h, idle, SIZES_AND_PLACES, b->before);
        absorb_before(h, id);
    }
    if (has_state(h, b->after, FREE)) {
        take_out(h, idle, SIZES_AND_PLACES, b->after);
        absorb_after(h, id);
    }
    b->state = FREE;
    insert(h, idle, SIZES_AND_PLACES, id);
}

static int32_t split(Heap *h, int32_t id, int64_t size, int state)
{
    Block *b = &h->blocks[id];
    int32_t rest = make(h, b->pool, b->address + size, b->size - size, state);
    h->blocks[rest].before = id;
    h->blocks[rest].after = b->after;
    if (b->after != NONE) h->blocks[b->after].before = rest;
    b->size = size;
    b->after = rest;
    return rest;
}

static void cut(Heap *h, int32_t id, int64_t size)
{
    int32_t rest = split(h, id, size, FREE);
    insert(h, &pool_of(h, id)->free, SIZES_AND_PLACES, rest);
}

#endif
