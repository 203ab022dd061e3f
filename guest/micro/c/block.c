#include "block.h"
#include "virtio.h"

enum {
    REQUESTS = 8,
    DESCRIPTORS_EACH = 4, /* header, data, status, and one unused */

    TYPE_READ = 0,
    TYPE_WRITE = 1,
    STATUS_OK = 0,
    CONFIG_CAPACITY = VIRTIO_CONFIG + 0,
};

struct header {
    u32 type;
    u32 reserved;
    u64 sector;
};

static struct virtio_device block_device;
static u64 block_base;
static VIRTQUEUE(REQUESTS *DESCRIPTORS_EACH) block_queue;
static struct {
    struct header header;
    u8 status;
    u8 *data;
    block_done *done;
    void *context;
} requests[REQUESTS];
static u32 requests_free = (1u << REQUESTS) - 1;
static u16 block_seen;

static void block_found(u64 base) { block_base = base; }
static bool block_present(void) { return block_base != 0; }

static void set_up(void)
{
    if (block_device.base == 0) {
        virtio_begin(&block_device, block_base, 0);
        VIRTIO_QUEUE(&block_device, 0, block_queue);
        virtio_ready(&block_device);
    }
}

static u64 block_capacity(void)
{
    set_up();
    return mmio_read(block_device.base + CONFIG_CAPACITY) |
           (u64)mmio_read(block_device.base + CONFIG_CAPACITY + 4) << 32;
}

static bool block_transfer(bool write, u64 sector, u8 *data, u64 bytes, block_done *done,
                           void *context)
{
    struct descriptor *d;
    u16 index = block_queue.available.index;
    u32 slot;

    if (requests_free == 0) {
        return false;
    }
    set_up();
    slot = lowest_bit(requests_free);
    requests_free &= ~(1u << slot);
    requests[slot].header = (struct header){write ? TYPE_WRITE : TYPE_READ, 0, sector};
    requests[slot].status = 0xff;
    requests[slot].data = data;
    requests[slot].done = done;
    requests[slot].context = context;

    u16 first = (u16)(slot * DESCRIPTORS_EACH);
    d = &block_queue.descriptors[first];
    d[0] = (struct descriptor){(u64)&requests[slot].header, sizeof(struct header), DESCRIPTOR_NEXT,
                               (u16)(first + 1)};
    d[1] = (struct descriptor){(u64)data, (u32)bytes,
                               write ? DESCRIPTOR_NEXT : DESCRIPTOR_NEXT | DESCRIPTOR_WRITE,
                               (u16)(first + 2)};
    d[2] = (struct descriptor){(u64)&requests[slot].status, 1, DESCRIPTOR_WRITE, 0};
    block_queue.available.ring[index % (REQUESTS * DESCRIPTORS_EACH)] = first;
    VIRTIO_INTERRUPT_AFTER(&block_device, block_queue, block_seen);
    VIRTIO_PUBLISH(&block_device, 0, block_queue, (u16)(index + 1));
    return true;
}

static void block_forget(void *context)
{
    for (u32 slot = 0; slot < REQUESTS; slot++) {
        if (requests[slot].context == context) {
            requests[slot].context = NULL;
        }
    }
}

static void block_interrupt(void)
{
    virtio_acknowledge(&block_device);
    for (;;) {
        if (block_seen == READ_ONCE(block_queue.used.index)) {
            VIRTIO_INTERRUPT_AFTER(&block_device, block_queue, block_seen);
            if (block_seen == READ_ONCE(block_queue.used.index)) {
                return;
            }
        }
        u32 slot = block_queue.used.ring[block_seen++ % (REQUESTS * DESCRIPTORS_EACH)].id / DESCRIPTORS_EACH;
        if (slot < REQUESTS && (requests_free & 1u << slot) == 0) {
            requests_free |= 1u << slot;
            requests[slot].done(requests[slot].context, requests[slot].data,
                                requests[slot].status == STATUS_OK);
        }
    }
}
