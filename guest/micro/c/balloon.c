#include "balloon.h"
#include "memory_layout.h"
#include "touched.h"
#include "virtio.h"

#define FEATURE_STATS_QUEUE (1ul << 1)

enum { INFLATE_QUEUE, DEFLATE_QUEUE, STATS_QUEUE };

enum {
    CONFIG_TARGET = VIRTIO_CONFIG + 0, /* num_pages */
    CONFIG_ACTUAL = VIRTIO_CONFIG + 4,

    /* One request carries up to CHUNKS buffers of FRAMES frame numbers each. */
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
static u64 boundary;        /* pages given lie at and above this one */
static bool moving;         /* a request is with the device */
LARGE static u32 frames[CHUNKS * FRAMES];

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

/* Sends the first `count` entries of frames through a queue that is empty. */
static void send_frames(chunk_queue *queue, u32 queue_number, u64 count)
{
    u16 index = queue->available.index;

    for (u64 sent = 0; sent < count; sent += FRAMES, index++) {
        u64 some = count - sent < FRAMES ? count - sent : FRAMES;
        u16 slot = index % CHUNKS;
        queue->descriptors[slot].address = (u64)(frames + sent);
        queue->descriptors[slot].length = (u32)(some * sizeof(u32));
        queue->descriptors[slot].flags = 0;
        queue->available.ring[slot] = slot;
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
    if (moving) {
        moving = false;
        touched_limit(boundary);
        mmio_write(balloon.base + CONFIG_ACTUAL, (u32)balloon_actual);
    }
}

/* Gives up to `count` pages. */
static void give(u64 count)
{
    u64 listed = 0;

    while (listed < count) {
        u64 run;
        u64 start = untouched_below(boundary, count - listed, &run);
        if (run == 0) {
            break;
        }
        list_frames(frames + listed, start, run);
        listed += run;
        boundary = start;
    }
    if (listed != 0) {
        /* Out of use before the device hears of them; back in use only once it has answered. */
        touched_limit(boundary);
        balloon_actual += listed;
        moving = true;
        send_frames(&inflate, INFLATE_QUEUE, listed);
    }
}

/* Takes `count` pages back. */
static void take_back(u64 count)
{
    u64 listed = 0;

    while (listed < count) {
        u64 run;
        u64 start = untouched_from(boundary, count - listed, &run);
        if (run == 0) {
            break;
        }
        list_frames(frames + listed, start, run);
        listed += run;
        boundary = start + run;
    }
    balloon_actual -= listed;
    if (balloon_actual == 0) {
        boundary = memory.region_pages;
    }
    moving = true;
    send_frames(&deflate, DEFLATE_QUEUE, listed);
}

/* One step towards the target; the interrupt that ends it leads to the next. */
static void balloon_step(void)
{
    u64 target = mmio_read(balloon.base + CONFIG_TARGET);
    u64 most = memory.region_pages > KEPT ? memory.region_pages - KEPT : 0;
    u64 at_once = CHUNKS * FRAMES;

    if (target > most) {
        target = most;
    }
    if (target > balloon_actual) {
        give(target - balloon_actual < at_once ? target - balloon_actual : at_once);
    } else if (target < balloon_actual) {
        take_back(balloon_actual - target < at_once ? balloon_actual - target : at_once);
    }
}

static void send_stats(void)
{
    u64 left = (memory.region_pages - balloon_actual) * PAGE_SIZE;

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
    boundary = memory.region_pages;
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
