// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * For a Linux guest whose RAM is private: shares a few MiB of it with its VMM
 * (KVM_HC_MAP_GPA_RANGE), and lets the drivers of virtio's PCI devices do all
 * of their DMA there. Load it before virtio_pci; it stays loaded.
 *
 * The pool is filled with zeros first, because where memory is shared in place
 * its contents stay.
 *
 * A mapping is a run of whole grains of the pool. What the driver sends is copied
 * there when it is mapped, what it receives is copied back when it is unmapped.
 *
 * Nothing else is copied: a free grain holds zeros, so what a device is to fill
 * shows its backend neither what the driver's buffer held nor what another device
 * was sent. Of what a device was to fill and did not, the driver gets zeros.
 */
#include <linux/bitmap.h>
#include <linux/dma-map-ops.h>
#include <linux/io.h>
#include <linux/kvm_para.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <asm/kvm_para.h>

#define POOL_ORDER	10
#define POOL_SIZE	(PAGE_SIZE << POOL_ORDER)
#define GRAIN		2048UL	/* virtio_net fills 1024 buffers of 1.5 KiB */
#define POOL_GRAINS	(POOL_SIZE / GRAIN)
#define VENDOR_VIRTIO	0x1af4

/* The pool; which grains are taken, and what each is a copy of. */
static char *pool;
static DEFINE_SPINLOCK(pool_lock);	/* guards used */
static DECLARE_BITMAP(used, POOL_GRAINS);
static char *origin[POOL_GRAINS];	/* the mapping's user writes and reads it */

static unsigned long grains_of(size_t size)
{
	return DIV_ROUND_UP(size, GRAIN);
}

static unsigned long take(unsigned long nr, unsigned long align_mask)
{
	unsigned long flags, first;

	spin_lock_irqsave(&pool_lock, flags);
	first = bitmap_find_next_zero_area(used, POOL_GRAINS, 0, nr, align_mask);
	if (first < POOL_GRAINS)
		bitmap_set(used, first, nr);
	spin_unlock_irqrestore(&pool_lock, flags);
	return first;
}

/* The pool stays shared: whoever has a device's backend may look at it later. */
static void give_back(char *p, size_t size)
{
	unsigned long flags;

	memset(p, 0, size);
	spin_lock_irqsave(&pool_lock, flags);
	bitmap_clear(used, (p - pool) / GRAIN, grains_of(size));
	spin_unlock_irqrestore(&pool_lock, flags);
}

static void *share_alloc(struct device *dev, size_t size, dma_addr_t *dma,
			 gfp_t gfp, unsigned long attrs)
{
	unsigned long first = take(grains_of(size), PAGE_SIZE / GRAIN - 1);
	char *p = pool + first * GRAIN;

	if (first >= POOL_GRAINS)
		return NULL;
	*dma = virt_to_phys(p);
	/* Drivers rely on the zeros, and backends may write to free grains. */
	return memset(p, 0, size);
}

static void share_free(struct device *dev, size_t size, void *p, dma_addr_t dma,
		       unsigned long attrs)
{
	give_back(p, size);
}

static char *shared_at(dma_addr_t dma)
{
	return pool + (dma - virt_to_phys(pool));
}

static char *private_at(dma_addr_t dma)
{
	return origin[(dma - virt_to_phys(pool)) / GRAIN] + dma % GRAIN;
}

static void sync_for_cpu(struct device *dev, dma_addr_t dma, size_t size,
			 enum dma_data_direction dir)
{
	if (dir != DMA_TO_DEVICE)
		memcpy(private_at(dma), shared_at(dma), size);
}

static void sync_for_device(struct device *dev, dma_addr_t dma, size_t size,
			    enum dma_data_direction dir)
{
	/* What a device fills is its own meanwhile, and has nothing of ours. */
	if (dir != DMA_FROM_DEVICE)
		memcpy(shared_at(dma), private_at(dma), size);
}

static dma_addr_t share_map_page(struct device *dev, struct page *page,
				 unsigned long offset, size_t size,
				 enum dma_data_direction dir, unsigned long attrs)
{
	unsigned long i, nr = grains_of(size), first = take(nr, 0);
	char *from = (char *)page_address(page) + offset;
	dma_addr_t dma = virt_to_phys(pool + first * GRAIN);

	if (first >= POOL_GRAINS)
		return DMA_MAPPING_ERROR;
	for (i = 0; i < nr; i++)
		origin[first + i] = from + i * GRAIN;
	if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		sync_for_device(dev, dma, size, dir);
	return dma;
}

static void share_unmap_page(struct device *dev, dma_addr_t dma, size_t size,
			     enum dma_data_direction dir, unsigned long attrs)
{
	if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		sync_for_cpu(dev, dma, size, dir);
	give_back(shared_at(dma), size);
}

static void share_unmap_sg(struct device *dev, struct scatterlist *list, int nents,
			   enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(list, sg, nents, i)
		share_unmap_page(dev, sg_dma_address(sg), sg_dma_len(sg), dir, attrs);
}

static int share_map_sg(struct device *dev, struct scatterlist *list, int nents,
			enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(list, sg, nents, i) {
		sg_dma_address(sg) = share_map_page(dev, sg_page(sg), sg->offset,
						    sg->length, dir, attrs);
		if (sg_dma_address(sg) == DMA_MAPPING_ERROR) {
			share_unmap_sg(dev, list, i, dir, attrs | DMA_ATTR_SKIP_CPU_SYNC);
			return -ENOMEM;
		}
		sg_dma_len(sg) = sg->length;
	}
	return nents;
}

static int share_supported(struct device *dev, u64 mask)
{
	return virt_to_phys(pool) + POOL_SIZE - 1 <= mask;
}

static size_t share_max_size(struct device *dev)
{
	return POOL_SIZE / 8;
}

static const struct dma_map_ops share_ops = {
	.alloc = share_alloc,
	.free = share_free,
	.map_page = share_map_page,
	.unmap_page = share_unmap_page,
	.map_sg = share_map_sg,
	.unmap_sg = share_unmap_sg,
	.sync_single_for_cpu = sync_for_cpu,
	.sync_single_for_device = sync_for_device,
	.dma_supported = share_supported,
	.max_mapping_size = share_max_size,
};

static int before_probe(struct notifier_block *nb, unsigned long event, void *data)
{
	struct device *dev = data;

	if (event == BUS_NOTIFY_BIND_DRIVER && to_pci_dev(dev)->vendor == VENDOR_VIRTIO)
		set_dma_ops(dev, &share_ops);
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = before_probe };

static int __init rmshare_init(void)
{
	long ret;

	pool = (char *)__get_free_pages(GFP_KERNEL | GFP_DMA32 | __GFP_ZERO, POOL_ORDER);
	if (!pool)
		return -ENOMEM;
	ret = kvm_hypercall3(KVM_HC_MAP_GPA_RANGE, virt_to_phys(pool),
			     POOL_SIZE / PAGE_SIZE,
			     KVM_MAP_GPA_RANGE_DECRYPTED);
	if (ret) {
		pr_err("rmshare: the VMM does not share memory (%ld)\n", ret);
		free_pages((unsigned long)pool, POOL_ORDER);
		return -ENXIO;
	}
	pr_info("rmshare: %lu KiB at %#llx are shared\n", POOL_SIZE / 1024,
		(u64)virt_to_phys(pool));
	return bus_register_notifier(&pci_bus_type, &notifier);
}
module_init(rmshare_init);

MODULE_DESCRIPTION("DMA of virtio devices through shared pages");
MODULE_LICENSE("GPL");
