#include "entropy.h"
#include "commands.h"
#include "random.h"
#include "virtio.h"

#define ENTROPY_WANTED 32

static struct virtio_device entropy;
static u8 entropy_buffer[ENTROPY_WANTED];
static VIRTQUEUE(1) entropy_queue = {
    .descriptors = {{(u64)entropy_buffer, ENTROPY_WANTED, DESCRIPTOR_WRITE, 0}},
};
static u32 entropy_received;
static bool entropy_due;

/* Asks for what is missing; a device may give less than the buffer holds. */
static void ask(struct virtio_device *device)
{
    entropy_queue.descriptors[0].address = (u64)(entropy_buffer + entropy_received);
    entropy_queue.descriptors[0].length = ENTROPY_WANTED - entropy_received;
    entropy_queue.available.used_event = entropy_queue.available.index;
    VIRTIO_PUBLISH(device, 0, entropy_queue, (u16)(entropy_queue.available.index + 1));
}

static void entropy_found(void) { entropy_due = true; }

static void entropy_init(u64 base)
{
    virtio_begin(&entropy, base, 0);
    VIRTIO_QUEUE(&entropy, 0, entropy_queue);
    virtio_ready(&entropy);
    ask(&entropy);
}

static void entropy_interrupt(void)
{
    virtio_acknowledge(&entropy);
    if (!entropy_due || READ_ONCE(entropy_queue.used.index) != entropy_queue.available.index) {
        return;
    }
    entropy_received += entropy_queue.used.ring[0].length;
    if (entropy_received < ENTROPY_WANTED) {
        ask(&entropy);
        return;
    }
    random_mix(entropy_buffer);
    entropy_due = false;
    commands_entropy_arrived();
}

static bool entropy_pending(void) { return entropy_due; }
