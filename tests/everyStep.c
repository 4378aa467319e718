/* Stops a program at the n-th thing it does to files under a folder; for everyStepTest.py.
 *
 * Preloaded, it stands between the program and the C library. steps_begin says under which folder
 * (root), at which step (at; 0: none) and how: DIE before the step, TEAR: die in the middle of a
 * write or else behind the step, or FAIL: this step and all later ones that need room fail with an
 * error number, a write after half of it. What was done is written to a descriptor, a line a step.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIE = 1, TEAR, FAIL };

static char root[4096];
static long at, step;
static int how, number, out = -1;

void steps_begin(const char *folder, long at_, int how_, int number_, int out_)
{
    strncpy(root, folder, sizeof root - 1);
    at = at_, how = how_, number = number_, out = out_, step = 0;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int ours(const char *path) { return root[0] && !strncmp(path, root, strlen(root)); }

/* Counts a step; returns 1 where it is the one, or a later one of FAIL. */
static int reached(const char *what, const char *path)
{
    char line[8192];
    int length = snprintf(line, sizeof line, "%s\t%s\n", what, path);
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    long now = __atomic_add_fetch(&step, 1, __ATOMIC_SEQ_CST);
    if (out >= 0) real(out, line, length);
    if (!at || now < at) return 0;
    if (how == DIE) die();
    return how == FAIL || now == at;
}

static int is_ours(int fd, char *path)
{
    char link[64];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root[0] ? readlink(link, path, 4095) : -1;
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

/* What needs no room: TEAR dies behind it. */
#define AROUND(what, path, call) do { \
        if (!ours(path)) return call; \
        int hit = reached(what, path), result = call; \
        if (hit && how == TEAR) die(); \
        return result; \
    } while (0)

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
    REAL(name); \
    va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT)) || !ours(path)) return real(path, flags, mode); \
    int hit = reached("open", path); \
    if (hit && how == FAIL && flags & O_CREAT && access(path, F_OK)) { errno = number; return -1; } \
    int result = real(path, flags, mode); \
    if (hit && how == TEAR) die(); \
    return result; \
}
OPEN(open)
OPEN(open64)

#define TRUNCATE(name, type) \
int name(int fd, type size) \
{ \
    REAL(name); char path[4096]; \
    if (!is_ours(fd, path)) return real(fd, size); \
    int hit = reached("truncate", path); \
    struct stat about; \
    if (hit && how == FAIL && !fstat(fd, &about) && size > about.st_size) \
        { errno = number; return -1; } \
    int result = real(fd, size); \
    if (hit && how == TEAR) die(); \
    return result; \
}
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

/* half(n) writes so many bytes; the first one that FAILs is short, as on a disk that gets full. */
#define WRITING(name, length, half) \
    REAL(name); char path[4096]; \
    if (!is_ours(fd, path)) return half(length); \
    if (!reached("write", path)) return half(length); \
    if (how == TEAR) { half(length / 2); die(); } \
    if (step == at && length > 1) return half(length / 2); \
    errno = number; return -1;

#define HALF(n) real(fd, data, n)
ssize_t write(int fd, const void *data, size_t length) { WRITING(write, length, HALF) }
#undef HALF
#define HALF(n) real(fd, data, n, place)
ssize_t pwrite(int fd, const void *data, size_t length, off_t place)
    { WRITING(pwrite, length, HALF) }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t place)
    { WRITING(pwrite64, length, HALF) }
#undef HALF

int fsync(int fd)
{
    REAL(fsync); char path[4096];
    if (!is_ours(fd, path)) return real(fd);
    int hit = reached("fsync", path);
    if (hit && how == FAIL && step == at) { errno = number; return -1; }
    int result = real(fd);
    if (hit && how == TEAR) die();
    return result;
}

int rename(const char *old, const char *path)
{
    REAL(rename);
    char both[8192];
    snprintf(both, sizeof both, "%s\t%s", old, path);
    AROUND("rename", both, real(old, path));
}

int link(const char *old, const char *path)
    { REAL(link); AROUND("link", path, real(old, path)); }

int unlink(const char *path) { REAL(unlink); AROUND("unlink", path, real(path)); }

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    if (!ours(path)) return real(path, mode);
    int hit = reached("mkdir", path);
    if (hit && how == FAIL) { errno = number; return -1; }
    int result = real(path, mode);
    if (hit && how == TEAR) die();
    return result;
}
