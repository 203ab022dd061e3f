/* virtio-mmio devices and split virtqueues (virtio 1.3 sections 2.7 and 4.2). */
#pragma once
#include "apic.h"
#include "cpu.h"
#include "types.h"

enum virtio_id {
    VIRTIO_BLOCK = 2,
    VIRTIO_CONSOLE = 3,
    VIRTIO_ENTROPY = 4,
    VIRTIO_BALLOON = 5,
    VIRTIO_VSOCK = 19,
};

/* Feature bits that concern the transport. */
#define VIRTIO_F_EVENT_IDX (1ul << 29)
#define VIRTIO_F_VERSION_1 (1ul << 32)

/* Where a device's registers are (section 4.2.2). */
enum virtio_register {
    VIRTIO_DEVICE_ID = 0x008,
    VIRTIO_DEVICE_FEATURES = 0x010,
    VIRTIO_DEVICE_FEATURES_SELECT = 0x014,
    VIRTIO_DRIVER_FEATURES = 0x020,
    VIRTIO_DRIVER_FEATURES_SELECT = 0x024,
    VIRTIO_QUEUE_SELECT = 0x030,
    VIRTIO_QUEUE_SIZE_MAX = 0x034,
    VIRTIO_QUEUE_SIZE = 0x038,
    VIRTIO_QUEUE_READY = 0x044,
    VIRTIO_QUEUE_NOTIFY = 0x050,
    VIRTIO_INTERRUPT_STATUS = 0x060,
    VIRTIO_INTERRUPT_ACK = 0x064,
    VIRTIO_STATUS = 0x070,
    VIRTIO_QUEUE_DESC_LOW = 0x080,
    VIRTIO_QUEUE_DESC_HIGH = 0x084,
    VIRTIO_QUEUE_DRIVER_LOW = 0x090,
    VIRTIO_QUEUE_DRIVER_HIGH = 0x094,
    VIRTIO_QUEUE_DEVICE_LOW = 0x0a0,
    VIRTIO_QUEUE_DEVICE_HIGH = 0x0a4,
    VIRTIO_CONFIG = 0x100,
};

struct descriptor {
    u64 address;
    u32 length;
    u16 flags;
    u16 next;
};
#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_WRITE 2 /* the device writes it */

struct used_element {
    u32 id;
    u32 length;
};

#define AVAILABLE_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1

/* A split virtqueue of `size` descriptors with its three parts side by side. The rings are static
 * objects, so the addresses of their parts are constants in the code. */
#define VIRTQUEUE(size)                                                                            \
    struct {                                                                                       \
        struct descriptor descriptors[size];                                                       \
        struct {                                                                                   \
            u16 flags;                                                                             \
            u16 index;                                                                             \
            u16 ring[size];                                                                        \
            u16 used_event; /* interrupt when the device passes this */                            \
        } available;                                                                               \
        struct {                                                                                   \
            u16 flags;                                                                             \
            u16 index;                                                                             \
            struct used_element ring[size];                                                        \
            u16 available_event; /* notify when the driver passes this */                          \
        } used __attribute__((aligned(4)));                                                        \
    } __attribute__((aligned(16)))

struct virtio_device {
    u64 base;       /* of its registers; 0 when the machine has no such device */
    bool event_idx; /* whether VIRTIO_F_EVENT_IDX was negotiated */
    bool acknowledge;
};

/* Negotiates the features in `wanted` as far as offered and returns those agreed upon. */
static u64 virtio_begin(struct virtio_device *device, u64 base, u64 wanted);
static void virtio_queue(struct virtio_device *device, u32 number, u32 size, const void *descriptors,
                         const void *available, const void *used);
#define VIRTIO_QUEUE(device, number, queue)                                                        \
    virtio_queue(device, number, sizeof((queue).descriptors) / sizeof(struct descriptor),          \
                 (queue).descriptors, &(queue).available, &(queue).used)
/* The device may work from here on. */
static void virtio_ready(struct virtio_device *device);

/* Wants no interrupt from a queue (with VIRTIO_F_EVENT_IDX: none but once in 65536 chains). */
#define VIRTIO_NO_INTERRUPT(device, queue)                                                         \
    do {                                                                                           \
        if ((device)->event_idx) {                                                                 \
            (queue).available.used_event = (u16)((queue).used.index - 1);                          \
        } else {                                                                                   \
            (queue).available.flags = AVAILABLE_NO_INTERRUPT;                                      \
        }                                                                                          \
    } while (0)
/* Wants an interrupt once the device is past `index`. */
#define VIRTIO_INTERRUPT_AFTER(device, queue, at)                                                  \
    do {                                                                                           \
        WRITE_ONCE((queue).available.used_event, (u16)(at));                                       \
        WRITE_ONCE((queue).available.flags, 0);                                                    \
        full_barrier();                                                                            \
    } while (0)

/* Takes note of an interrupt. */
INLINE void virtio_acknowledge(const struct virtio_device *device)
{
    if (device->acknowledge) {
        u32 status;
        /* An edge comes only from zero: go on until nothing is left. */
        while ((status = mmio_read(device->base + VIRTIO_INTERRUPT_STATUS)) != 0) {
            mmio_write(device->base + VIRTIO_INTERRUPT_ACK, status);
        }
    }
}

/* Section 2.7.10: whether passing from `before` to `after` crosses `event`. */
INLINE bool virtio_crosses(u16 event, u16 after, u16 before)
{
    return (u16)(after - event - 1) < (u16)(after - before);
}

/* Publishes descriptor chains up to `after` and notifies the device if it asked for that. */
#define VIRTIO_PUBLISH(device, number, queue, after)                                               \
    do {                                                                                           \
        u16 virtio_before = (queue).available.index;                                               \
        u16 virtio_after = (after);                                                                \
        compiler_barrier();                                                                        \
        WRITE_ONCE((queue).available.index, virtio_after);                                         \
        full_barrier();                                                                            \
        if ((device)->event_idx                                                                    \
                ? virtio_crosses(READ_ONCE((queue).used.available_event), virtio_after,            \
                                 virtio_before)                                                    \
                : (READ_ONCE((queue).used.flags) & USED_NO_NOTIFY) == 0) {                         \
            mmio_write((device)->base + VIRTIO_QUEUE_NOTIFY, number);                              \
        }                                                                                          \
    } while (0)
