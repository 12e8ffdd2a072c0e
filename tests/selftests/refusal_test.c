// SPDX-License-Identifier: GPL-2.0-only
/*
 * Copyright (C) 2026 The restrictedmem authors
 *
 * What a file refuses: nobody gets at its contents, by whatever call, and nobody
 * changes what it is.
 */
#include <linux/aio_abi.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "kselftest_harness.h"
#include "util.h"

/* A file with all its pages there, so that there is something to refuse. */
FIXTURE(refused) {
	int fd;
	int tmp;
	int pipe[2];
	char buf[2 * PAGE];
};

FIXTURE_SETUP(refused)
{
	self->fd = create_small(4 * PAGE);
	ASSERT_LE(0, self->fd);
	ASSERT_EQ(0, populate(self->fd, 0, 4 * PAGE));
	self->tmp = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	ASSERT_LE(0, self->tmp);
	ASSERT_EQ(sizeof(self->buf),
		  write(self->tmp, self->buf, sizeof(self->buf)));
	ASSERT_EQ(0, lseek(self->tmp, 0, SEEK_SET));
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(refused)
{
	EXPECT_EQ(4 * PAGE, resident(self->fd));
	close(self->fd);
	close(self->tmp);
	close(self->pipe[0]);
	close(self->pipe[1]);
}

TEST_F(refused, read)
{
	EXPECT_FAILS(EINVAL, read(self->fd, self->buf, PAGE));
}

TEST_F(refused, write)
{
	EXPECT_FAILS(EINVAL, write(self->fd, self->buf, PAGE));
}

TEST_F(refused, readv_and_writev)
{
	const struct iovec iov = { self->buf, PAGE };

	EXPECT_FAILS(EINVAL, readv(self->fd, &iov, 1));
	EXPECT_FAILS(EINVAL, writev(self->fd, &iov, 1));
}

TEST_F(refused, pread_and_pwrite)
{
	EXPECT_FAILS(ESPIPE, pread(self->fd, self->buf, PAGE, 0));
	EXPECT_FAILS(ESPIPE, pwrite(self->fd, self->buf, PAGE, 0));
}

TEST_F(refused, preadv2_and_pwritev2_at_the_position)
{
	const struct iovec iov = { self->buf, PAGE };

	EXPECT_FAILS(EINVAL, preadv2(self->fd, &iov, 1, -1, 0));
	EXPECT_FAILS(EINVAL, pwritev2(self->fd, &iov, 1, -1, 0));
}

TEST_F(refused, lseek)
{
	EXPECT_FAILS(ESPIPE, lseek(self->fd, 0, SEEK_SET));
	EXPECT_FAILS(ESPIPE, lseek(self->fd, 0, SEEK_DATA));
}

TEST_F(refused, mmap_shared)
{
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				  self->fd, 0));
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, self->fd, 0));
}

TEST_F(refused, mmap_private)
{
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, self->fd, 0));
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE,
				  self->fd, 0));
}

TEST_F(refused, splice_from)
{
	EXPECT_FAILS(EINVAL, splice(self->fd, NULL, self->pipe[1], NULL, PAGE, 0));
}

TEST_F(refused, splice_from_an_offset)
{
	loff_t offset = 0;

	EXPECT_FAILS(EINVAL, splice(self->fd, &offset, self->pipe[1], NULL, PAGE, 0));
}

TEST_F(refused, splice_to)
{
	ASSERT_EQ(1, write(self->pipe[1], "x", 1));
	EXPECT_FAILS(EINVAL, splice(self->pipe[0], NULL, self->fd, NULL, 1, 0));
}

TEST_F(refused, sendfile_from)
{
	EXPECT_FAILS(EINVAL, sendfile(self->tmp, self->fd, NULL, PAGE));
}

TEST_F(refused, sendfile_to)
{
	EXPECT_FAILS(EINVAL, sendfile(self->fd, self->tmp, NULL, PAGE));
}

TEST_F(refused, copy_file_range_from_and_to_another_filesystem)
{
	EXPECT_FAILS(EXDEV, copy_file_range(self->fd, NULL, self->tmp, NULL, PAGE, 0));
	EXPECT_FAILS(EXDEV, copy_file_range(self->tmp, NULL, self->fd, NULL, PAGE, 0));
}

TEST_F(refused, copy_file_range_between_two_of_ours)
{
	int other = create_small(4 * PAGE);

	ASSERT_LE(0, other);
	EXPECT_FAILS(EINVAL, copy_file_range(self->fd, NULL, other, NULL, PAGE, 0));
	EXPECT_EQ(0, resident(other));
}

TEST_F(refused, clone_and_dedupe)
{
	int other = create_small(4 * PAGE);

	ASSERT_LE(0, other);
	EXPECT_FAILS(EOPNOTSUPP, ioctl(other, FICLONE, self->fd));
	EXPECT_FAILS(EXDEV, ioctl(self->tmp, FICLONE, self->fd));
}

TEST_F(refused, reopen_through_proc)
{
	const char *path = path_of("/proc/self/fd/%d", self->fd);

	EXPECT_FAILS(ENXIO, open(path, O_RDONLY));
	EXPECT_FAILS(ENXIO, open(path, O_WRONLY));
	EXPECT_FAILS(ENXIO, open(path, O_RDWR));
	EXPECT_FAILS(ENXIO, open(path, O_RDWR | O_TRUNC));
}

TEST_F(refused, use_of_an_o_path_fd)
{
	int path = open(path_of("/proc/self/fd/%d", self->fd), O_PATH);

	ASSERT_LE(0, path);
	EXPECT_FAILS(EBADF, read(path, self->buf, PAGE));
	EXPECT_FAILS(EBADF, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, path, 0));
	EXPECT_FAILS(EBADF, punch(path, 0, PAGE));
	EXPECT_FAILS(ENXIO, open(path_of("/proc/self/fd/%d", path), O_RDWR));
}

TEST_F(refused, truncate_by_path)
{
	EXPECT_FAILS(EPERM, truncate(path_of("/proc/self/fd/%d", self->fd), PAGE));
}

TEST_F(refused, reopen_by_another_process)
{
	pid_t parent = getpid(), child = fork();
	int status;

	ASSERT_LE(0, child);
	if (!child) {
		close(self->fd);
		if (open(path_of("/proc/%d/fd/%d", parent, self->fd), O_RDWR) >= 0)
			_exit(1);
		_exit(errno == ENXIO ? 0 : 2);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
}

/* One read by io_uring, without its library. */
static int io_uring_read(int fd, void *buf, unsigned int len)
{
	struct io_uring_params p = {};
	int ring = syscall(SYS_io_uring_setup, 1, &p), res;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	char *sq, *cq;

	if (ring < 0)
		return 1;
	sq = mmap(NULL, p.sq_off.array + 4, PROT_READ | PROT_WRITE, MAP_SHARED,
		  ring, IORING_OFF_SQ_RING);
	cq = mmap(NULL, p.cq_off.cqes + 2 * sizeof(*cqe), PROT_READ | PROT_WRITE,
		  MAP_SHARED, ring, IORING_OFF_CQ_RING);
	sqe = mmap(NULL, sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring,
		   IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || sqe == MAP_FAILED)
		return 2;

	*sqe = (struct io_uring_sqe) {
		.opcode = IORING_OP_READ,
		.fd = fd,
		.addr = (uintptr_t)buf,
		.len = len,
		.off = -1,
	};
	*(uint32_t *)(sq + p.sq_off.array) = 0;
	__atomic_store_n((uint32_t *)(sq + p.sq_off.tail), 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL,
		    0) != 1)
		return 3;
	cqe = (void *)(cq + p.cq_off.cqes);
	res = cqe->res;
	close(ring);
	return res;
}

TEST_F(refused, io_uring)
{
	/* The helper itself is right. */
	ASSERT_EQ(PAGE, io_uring_read(self->tmp, self->buf, PAGE));
	EXPECT_EQ(-EINVAL, io_uring_read(self->fd, self->buf, PAGE));
}

TEST_F(refused, aio)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = self->fd,
		.aio_buf = (uintptr_t)self->buf,
		.aio_nbytes = PAGE,
	}, *cbs = &cb;
	aio_context_t ctx = 0;

	ASSERT_EQ(0, syscall(SYS_io_setup, 1, &ctx));
	EXPECT_FAILS(EINVAL, syscall(SYS_io_submit, ctx, 1, &cbs));
	cb.aio_lio_opcode = IOCB_CMD_PWRITE;
	EXPECT_FAILS(EINVAL, syscall(SYS_io_submit, ctx, 1, &cbs));
	syscall(SYS_io_destroy, ctx);
}

TEST_F(refused, execveat)
{
	char *const none[] = { NULL };

	EXPECT_FAILS(EACCES, syscall(SYS_execveat, self->fd, "", none, none,
				     AT_EMPTY_PATH));
}

TEST_F(refused, finit_module)
{
	EXPECT_FAILS(EINVAL, syscall(SYS_finit_module, self->fd, "", 0));
}

TEST_F(refused, swapon)
{
	EXPECT_FAILS(ENXIO, swapon(path_of("/proc/self/fd/%d", self->fd), 0));
}

TEST_F(refused, bind_mount)
{
	EXPECT_FAILS(EINVAL, mount(path_of("/proc/self/fd/%d", self->fd),
				   "/dev/null", NULL, MS_BIND, NULL));
}

TEST_F(refused, hard_link)
{
	EXPECT_FAILS(EXDEV, linkat(self->fd, "", AT_FDCWD, "/tmp/restrictedmem.link",
				   AT_EMPTY_PATH));
}

TEST_F(refused, file_handle)
{
	struct {
		struct file_handle handle;
		char space[MAX_HANDLE_SZ];
	} h = { .handle.handle_bytes = MAX_HANDLE_SZ };
	int mount_id;

	EXPECT_FAILS(EOPNOTSUPP, name_to_handle_at(self->fd, "", &h.handle,
						   &mount_id, AT_EMPTY_PATH));
}

/* Some kernels take the file and fail each request, others refuse it. */
TEST_F(refused, loop_device)
{
	struct loop_config config = { .fd = self->fd };
	int control, loop, n;

	ASSERT_EQ(0, system("modprobe loop"));
	control = open("/dev/loop-control", O_RDWR);
	ASSERT_LE(0, control);
	n = ioctl(control, LOOP_CTL_GET_FREE);
	ASSERT_LE(0, n);
	loop = open(path_of("/dev/loop%d", n), O_RDWR);
	ASSERT_LE(0, loop);

	if (ioctl(loop, LOOP_CONFIGURE, &config)) {
		EXPECT_EQ(EINVAL, errno);
		return;
	}
	EXPECT_FAILS(EIO, pread(loop, self->buf, PAGE, 0));
	EXPECT_EQ(0, ioctl(loop, LOOP_CLR_FD));
}

TEST_F(refused, change_of_mode_owner_and_times)
{
	EXPECT_FAILS(EPERM, fchmod(self->fd, 0777));
	EXPECT_FAILS(EPERM, fchown(self->fd, 1, 1));
	EXPECT_FAILS(EPERM, futimens(self->fd, NULL));
}

TEST_F(refused, extended_attributes)
{
	EXPECT_FAILS(EOPNOTSUPP, fsetxattr(self->fd, "user.x", "y", 1, 0));
}

TEST_F(refused, seals)
{
	EXPECT_FAILS(EINVAL, fcntl(self->fd, F_GET_SEALS));
	EXPECT_FAILS(EINVAL, fcntl(self->fd, F_ADD_SEALS, F_SEAL_SHRINK));
}

TEST_F(refused, ioctls_of_filesystems)
{
	struct fiemap fiemap = { .fm_length = PAGE };
	struct fsxattr xattr = {};
	int flags = 0;

	EXPECT_FAILS(ENOTTY, ioctl(self->fd, FS_IOC_GETFLAGS, &flags));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, FS_IOC_SETFLAGS, &flags));
	EXPECT_FAILS(ENOTTY, ioctl(self->fd, FS_IOC_FSSETXATTR, &xattr));
	EXPECT_FAILS(EOPNOTSUPP, ioctl(self->fd, FS_IOC_FIEMAP, &fiemap));
	EXPECT_FAILS(EINVAL, ioctl(self->fd, FIBMAP, &flags));
}

TEST_F(refused, ioctls_of_the_device)
{
	struct restrictedmem_info info = { .size = sizeof(info) };

	EXPECT_FAILS(ENOTTY, ioctl(self->fd, RESTRICTEDMEM_INFO, &info));
}

/* Hand @fd to ourselves over a socket. */
static int pass_fd(int fd)
{
	char data = 'x', control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &data, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int sock[2], passed = -1;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock))
		return -1;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	if (sendmsg(sock[0], &msg, 0) == 1 && recvmsg(sock[1], &msg, 0) == 1) {
		c = CMSG_FIRSTHDR(&msg);
		if (c)
			memcpy(&passed, CMSG_DATA(c), sizeof(int));
	}
	close(sock[0]);
	close(sock[1]);
	return passed;
}

TEST_F(refused, all_the_same_to_who_was_passed_the_fd)
{
	int passed = pass_fd(self->fd);

	ASSERT_LE(0, passed);
	EXPECT_FAILS(EINVAL, read(passed, self->buf, PAGE));
	EXPECT_FAILS(EINVAL, write(passed, self->buf, PAGE));
	EXPECT_FAILS(ENODEV, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, passed, 0));
}

TEST_F(refused, all_the_same_to_a_child)
{
	pid_t child = fork();
	int status;

	ASSERT_LE(0, child);
	if (!child) {
		if (read(self->fd, self->buf, PAGE) != -1 || errno != EINVAL)
			_exit(1);
		if (mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, 0) !=
		    MAP_FAILED || errno != ENODEV)
			_exit(2);
		_exit(0);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
}

TEST_F(refused, advice_is_harmless)
{
	static const int all[] = {
		POSIX_FADV_NORMAL, POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL,
		POSIX_FADV_WILLNEED, POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE,
	};

	for (int i = 0; i < ARRAY_SIZE(all); i++)
		EXPECT_EQ(0, posix_fadvise(self->fd, 0, 0, all[i]));
	readahead(self->fd, 0, PAGE);
	EXPECT_EQ(4 * PAGE, resident(self->fd));
}

TEST_F(refused, sync_is_harmless)
{
	EXPECT_FAILS(EINVAL, fsync(self->fd));
	EXPECT_EQ(0, syncfs(self->fd));
	sync_file_range(self->fd, 0, PAGE, SYNC_FILE_RANGE_WRITE);
	EXPECT_EQ(4 * PAGE, resident(self->fd));
}

TEST_HARNESS_MAIN
