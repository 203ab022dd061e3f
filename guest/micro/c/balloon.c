#include "balloon.h"
#include "memory_layout.h"
#include "touched.h"
#include "virtio.h"

#define FEATURE_STATS_QUEUE (1ul << 1)

enum { INFLATE_QUEUE, DEFLATE_QUEUE, STATS_QUEUE };

enum {
    CONFIG_TARGET = VIRTIO_CONFIG + 0, /* num_pages */
    CONFIG_ACTUAL = VIRTIO_CONFIG + 4,

    /* One request carries up to CHUNKS arrays of FRAMES frame numbers. */
    CHUNKS = 8,
    FRAMES = PAGE_SIZE / sizeof(u32),
    /* Pages that the guest never gives up. */
    KEPT = 16,

    STAT_FREE = 4,
    STAT_TOTAL = 5,
    STAT_AVAILABLE = 6,
    STATS = 3,
};

struct statistic {
    u16 tag;
    u64 value;
} __attribute__((packed));

typedef VIRTQUEUE(CHUNKS) chunk_queue;

static struct virtio_device balloon;
static chunk_queue inflate;
static chunk_queue deflate;
static VIRTQUEUE(1) stats_queue;
static struct statistic stats[STATS];
static u16 stats_seen;
static bool stats_wanted;
static u64 balloon_actual;  /* pages in the balloon, those on their way included */
static bool balloon_moving; /* a request is with the device */
LARGE static u32 frames[CHUNKS][FRAMES];

static u64 balloon_pages(void) { return balloon_actual; }

/* Lists the frames of `count` pages from `number` on; two to a store where they are consecutive. */
static void list_frames(u32 *to, u64 number, u64 count)
{
    while (count != 0) {
        u64 run;
        u64 frame = region_frame(number, &run);
        u64 pair = frame | (frame + 1) << 32;
        if (run > count) {
            run = count;
        }
        number += run;
        count -= run;
        for (; run >= 2; run -= 2, to += 2, pair += 0x200000002) {
            store64(to, pair);
        }
        if (run != 0) {
            *to++ = (u32)pair;
        }
    }
}

/* Sends `count` pages from `number` on through a queue that is empty. */
static void send_pages(chunk_queue *queue, u32 queue_number, u64 number, u64 count)
{
    u16 index = queue->available.index;

    for (u16 chunk = 0; count != 0; chunk++) {
        u64 some = count < FRAMES ? count : FRAMES;
        u16 slot = index % CHUNKS;
        list_frames(frames[chunk], number, some);
        queue->descriptors[slot].address = (u64)frames[chunk];
        queue->descriptors[slot].length = (u32)(some * sizeof(u32));
        queue->descriptors[slot].flags = 0;
        queue->available.ring[slot] = slot;
        index++;
        number += some;
        count -= some;
    }
    VIRTIO_INTERRUPT_AFTER(&balloon, *queue, index - 1);
    VIRTIO_PUBLISH(&balloon, queue_number, *queue, index);
}

static bool busy(const chunk_queue *queue)
{
    return READ_ONCE(queue->used.index) != queue->available.index;
}

/* Takes note of a request that the device has carried out. */
static void balloon_settle(void)
{
    if (balloon_moving) {
        balloon_moving = false;
        touched_limit(memory.region_pages - balloon_actual);
        mmio_write(balloon.base + CONFIG_ACTUAL, (u32)balloon_actual);
    }
}

/* One step towards the target; the interrupt that ends it leads to the next. */
static void balloon_step(void)
{
    u64 target = mmio_read(balloon.base + CONFIG_TARGET);
    u64 most = memory.region_pages > KEPT ? memory.region_pages - KEPT : 0;
    u64 count;

    if (target > most) {
        target = most;
    }
    if (target > balloon_actual) {
        count = target - balloon_actual < CHUNKS * FRAMES ? target - balloon_actual : CHUNKS * FRAMES;
        balloon_actual += count;
        /* Out of use before the device hears of them; back in use once it has answered. */
        touched_limit(memory.region_pages - balloon_actual);
        send_pages(&inflate, INFLATE_QUEUE, memory.region_pages - balloon_actual, count);
        balloon_moving = true;
    } else if (target < balloon_actual) {
        count = balloon_actual - target < CHUNKS * FRAMES ? balloon_actual - target : CHUNKS * FRAMES;
        send_pages(&deflate, DEFLATE_QUEUE, memory.region_pages - balloon_actual, count);
        balloon_actual -= count;
        balloon_moving = true;
    }
}

static void send_stats(void)
{
    u64 left = touched_available() * PAGE_SIZE;

    stats[0] = (struct statistic){STAT_FREE, left};
    stats[1] = (struct statistic){STAT_TOTAL, memory.total - balloon_actual * PAGE_SIZE};
    stats[2] = (struct statistic){STAT_AVAILABLE, left};
    stats_queue.descriptors[0].address = (u64)stats;
    stats_queue.descriptors[0].length = sizeof(stats);
    VIRTIO_INTERRUPT_AFTER(&balloon, stats_queue, stats_queue.available.index);
    VIRTIO_PUBLISH(&balloon, STATS_QUEUE, stats_queue, (u16)(stats_queue.available.index + 1));
}

static void balloon_init(u64 base)
{
    stats_wanted = (virtio_begin(&balloon, base, FEATURE_STATS_QUEUE) & FEATURE_STATS_QUEUE) != 0;
    VIRTIO_QUEUE(&balloon, INFLATE_QUEUE, inflate);
    VIRTIO_QUEUE(&balloon, DEFLATE_QUEUE, deflate);
    if (stats_wanted) {
        VIRTIO_QUEUE(&balloon, STATS_QUEUE, stats_queue);
    }
    virtio_ready(&balloon);
    if (stats_wanted) {
        send_stats();
    }
    balloon_step();
}

static void balloon_interrupt(void)
{
    virtio_acknowledge(&balloon);
    if (!busy(&inflate) && !busy(&deflate)) {
        balloon_settle();
        balloon_step();
    }
    /* The device gives the buffer back when it wants new figures. */
    if (stats_wanted && stats_seen != READ_ONCE(stats_queue.used.index)) {
        stats_seen = stats_queue.used.index;
        send_stats();
    }
}
