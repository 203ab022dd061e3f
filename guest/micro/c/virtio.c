#include "virtio.h"
#include "command_line.h"
#include "power.h"

enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
};

/* Every access of a register leaves the guest, so none is made twice. */
static u64 virtio_begin(struct virtio_device *device, u64 base, u64 wanted)
{
    u64 offered;

    device->base = base;
    mmio_write(base + VIRTIO_STATUS, 0);
    mmio_write(base + VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    mmio_write(base + VIRTIO_DEVICE_FEATURES_SELECT, 0);
    offered = mmio_read(base + VIRTIO_DEVICE_FEATURES);
    mmio_write(base + VIRTIO_DEVICE_FEATURES_SELECT, 1);
    offered |= (u64)mmio_read(base + VIRTIO_DEVICE_FEATURES) << 32;
    if ((offered & VIRTIO_F_VERSION_1) == 0) {
        panic("a device without VIRTIO_F_VERSION_1");
    }
    offered &= wanted | VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
    mmio_write(base + VIRTIO_DRIVER_FEATURES_SELECT, 0);
    mmio_write(base + VIRTIO_DRIVER_FEATURES, (u32)offered);
    mmio_write(base + VIRTIO_DRIVER_FEATURES_SELECT, 1);
    mmio_write(base + VIRTIO_DRIVER_FEATURES, (u32)(offered >> 32));
    mmio_write(base + VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if ((mmio_read(base + VIRTIO_STATUS) & STATUS_FEATURES_OK) == 0) {
        panic("a device refused its own features");
    }
    device->event_idx = (offered & VIRTIO_F_EVENT_IDX) != 0;
    device->acknowledge = !command_line.edge;
    return offered;
}

/* The rings lie in the image, below 4 GiB; the reset left the high halves zero. */
static void virtio_queue(struct virtio_device *device, u32 number, u32 size, const void *descriptors,
                         const void *available, const void *used)
{
    u64 base = device->base;

    mmio_write(base + VIRTIO_QUEUE_SELECT, number);
    if (mmio_read(base + VIRTIO_QUEUE_SIZE_MAX) < size) {
        panic("a queue that is too short");
    }
    mmio_write(base + VIRTIO_QUEUE_SIZE, size);
    mmio_write(base + VIRTIO_QUEUE_DESC_LOW, (u32)(u64)descriptors);
    mmio_write(base + VIRTIO_QUEUE_DRIVER_LOW, (u32)(u64)available);
    mmio_write(base + VIRTIO_QUEUE_DEVICE_LOW, (u32)(u64)used);
    mmio_write(base + VIRTIO_QUEUE_READY, 1);
}

static void virtio_ready(struct virtio_device *device)
{
    mmio_write(device->base + VIRTIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER |
                                                 STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}
