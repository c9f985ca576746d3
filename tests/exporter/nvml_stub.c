/* A libnvidia-ml.so.1 that tests own: two GPUs whose fate is a file of lines `name=number`.
 *
 * NVML_STUB names the file; it is read at every call, so that a GPU can be lost in the middle of a
 * run. Built with -DOLD_DRIVER, the functions that younger drivers brought are missing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
       TOO_SMALL = 7, TIMED_OUT = 10, LOST = 15, UNKNOWN = 999 };

typedef struct { int gpu, instance; } Device;
static Device gpus[8] = {{0, -1}, {1, -1}, {2, -1}, {3, -1}, {4, -1}, {5, -1}, {6, -1}, {7, -1}};
static Device parts[3] = {{0, 1}, {0, 2}, {0, 2}}; /* the second instance has two compute instances */

static long option(const char *name, long fallback) {
    char line[128];
    FILE *file = fopen(getenv("NVML_STUB"), "r");
    if (!file) return fallback;
    while (fgets(line, sizeof line, file)) {
        char *equals = strchr(line, '=');
        if (!equals) continue;
        *equals = 0;
        if (!strcmp(line, name)) fallback = strtol(equals + 1, NULL, 0);
    }
    fclose(file);
    return fallback;
}

static int state(Device *device) {
    while (option("hang", -1) == device->gpu) {
        char marker[512];
        snprintf(marker, sizeof marker, "%s.hangs", getenv("NVML_STUB"));
        FILE *file = fopen(marker, "w");
        if (file) fclose(file);
        usleep(20 * 1000);
    }
    if (option("broken", 0)) return (int)option("broken", 0);
    if (option("lost", -1) == device->gpu) return LOST;
    if (option("mute", -1) == device->gpu) return UNKNOWN;
    return OK;
}
#define ALIVE(device) do { int rc_ = state(device); if (rc_) return rc_; } while (0)

const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "stub error"; }
int nvmlInitWithFlags(unsigned flags) { puts("a driver that prints"); return (int)option("init", OK); }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "580.95.05"); return OK; }
int nvmlSystemGetCudaDriverVersion(int *version) { *version = 13010; return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)option("count", 2); return OK; }

/* `gone=0` takes GPU 0 out of the list: GPU 1 moves up to its index, as on a real bus. */
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    long gone = option("gone", -1);
    *device = &gpus[gone >= 0 && index >= gone ? index + 1 : index];
    return option("unreachable", -1) == (long)index ? LOST : OK;
}
int nvmlDeviceGetUUID(Device *d, char *text, unsigned size) { snprintf(text, size, "GPU-stub-%d", d->gpu); return OK; }
int nvmlDeviceGetName(Device *d, char *text, unsigned size) {
    if (d->instance < 0) snprintf(text, size, "NVIDIA H200");
    else snprintf(text, size, d->instance == 1 ? "NVIDIA H200 MIG 1g.18gb" : "NVIDIA H200 MIG 1c.3g.71gb");
    return OK;
}
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
int nvmlDeviceGetPciInfo_v3(Device *d, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", 0x1b + d->gpu);
    return OK;
}

typedef struct { unsigned gpu, memory; } Rates;
int nvmlDeviceGetUtilizationRates(Device *d, Rates *rates) {
    ALIVE(d);
    if (option("mig", -1) == d->gpu) return NOT_SUPPORTED;
    rates->gpu = 97; rates->memory = 7;
    return OK;
}
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(Device *d, Memory *m) {
    ALIVE(d);
    m->total = 150754820096ULL; m->used = 100000000000ULL; m->free = 50754820096ULL;
    return OK;
}
#ifndef OLD_DRIVER
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
int nvmlDeviceGetMemoryInfo_v2(Device *d, MemoryV2 *m) {
    ALIVE(d);
    m->total = d->instance < 0 ? 150754820096ULL : 1000000000ULL * (unsigned)d->instance;
    m->reserved = 671088640ULL; m->used = m->total / 2; m->free = m->total / 2 - m->reserved;
    return OK;
}
typedef struct { unsigned version, sensor; int value; } Temperature;
int nvmlDeviceGetTemperatureV(Device *d, Temperature *t) { ALIVE(d); t->value = 52; return OK; }
typedef struct { unsigned version; int margin; } Margin;
int nvmlDeviceGetMarginTemperature(Device *d, Margin *m) { ALIVE(d); m->margin = 35; return OK; }
#endif
int nvmlDeviceGetTemperature(Device *d, unsigned sensor, unsigned *value) { ALIVE(d); *value = 51; return OK; }
int nvmlDeviceGetPowerUsage(Device *d, unsigned *milliwatts) {
    ALIVE(d);
    if (option("power", OK)) return (int)option("power", OK);
    *milliwatts = option("blank", 0) ? 0xffffffffu : 627500;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(Device *d, unsigned *milliwatts) { ALIVE(d); *milliwatts = 700000; return OK; }
int nvmlDeviceGetTotalEnergyConsumption(Device *d, unsigned long long *millijoules) {
    ALIVE(d); *millijoules = 123456789ULL; return OK;
}
int nvmlDeviceGetClockInfo(Device *d, unsigned domain, unsigned *mhz) { ALIVE(d); *mhz = domain == 2 ? 3201 : 1980; return OK; }
int nvmlDeviceGetMaxClockInfo(Device *d, unsigned domain, unsigned *mhz) { ALIVE(d); *mhz = domain == 2 ? 3201 : 1980; return OK; }
int nvmlDeviceGetCurrentClocksEventReasons(Device *d, unsigned long long *mask) { ALIVE(d); *mask = 0x44; return OK; }
int nvmlDeviceGetTotalEccErrors(Device *d, unsigned type, unsigned counter, unsigned long long *count) {
    ALIVE(d); *count = 10 * type + counter + 1; return OK;
}
int nvmlDeviceGetRemappedRows(Device *d, unsigned *c, unsigned *u, unsigned *pending, unsigned *failure) {
    ALIVE(d); *c = 3; *u = 1; *pending = 1; *failure = 0; return OK;
}
int nvmlDeviceGetCurrPcieLinkGeneration(Device *d, unsigned *value) { ALIVE(d); *value = 4; return OK; }
int nvmlDeviceGetMaxPcieLinkGeneration(Device *d, unsigned *value) { ALIVE(d); *value = 5; return OK; }
int nvmlDeviceGetCurrPcieLinkWidth(Device *d, unsigned *value) { ALIVE(d); *value = 16; return OK; }
int nvmlDeviceGetMaxPcieLinkWidth(Device *d, unsigned *value) { ALIVE(d); *value = 16; return OK; }
int nvmlDeviceGetPcieReplayCounter(Device *d, unsigned *value) { ALIVE(d); *value = 2; return OK; }
int nvmlDeviceGetPcieThroughput(Device *d, unsigned way, unsigned *kilobytes) {
    ALIVE(d); usleep(20 * 1000); *kilobytes = way ? 2000 : 1000; return OK;
}
int nvmlDeviceGetNvLinkState(Device *d, unsigned link, unsigned *is_up) { ALIVE(d); *is_up = link != 1; return OK; }

typedef struct { uint32_t id, scope; int64_t at, latency; uint32_t type; int32_t rc;
                 union { double d; unsigned u; unsigned long long ull; int i; } value; } Field;
static void as_wide(Field *f, unsigned long long value) { f->type = 3; f->rc = OK; f->value.ull = value; }
static void as_uint(Field *f, unsigned value) { f->type = 1; f->rc = OK; f->value.u = value; }
static void fill(Field *f) {
    f->rc = NOT_SUPPORTED;
    memset(&f->value, 0xff, sizeof f->value);
    if (f->id == 82) as_uint(f, 61);
    if (f->id == 91) as_uint(f, (unsigned)option("links", 4));
    if (f->id == 230) as_uint(f, (unsigned)option("recovery", 0));
    if (f->id == 74) as_wide(f, 2500000000ULL);
    if (f->id == 270) as_wide(f, option("blank", 0) ? 9223372036854775794ULL : 1500000000ULL);
    if (!option("links_by_link", 0) && f->scope == 0xffffffffu && (f->id == 138 || f->id == 139))
        as_wide(f, f->id == 138 ? 1000 : 2000);
    if (f->scope < 4) {
        int answers = option("silent_link", -1) != (long)f->scope;
        if (option("links_by_link", 0) && answers && (f->id == 202 || f->id == 204)) as_wide(f, 1000 + f->scope);
        if (answers && f->id >= 161 && f->id <= 163) as_wide(f, f->id - 160);
    }
}
int nvmlDeviceGetFieldValues(Device *d, int count, Field *fields) {
    ALIVE(d);
    for (int i = 0; i < count; i++) fill(&fields[i]);
    return OK;
}

typedef struct { unsigned version, is_supported; } GpmSupport;
int nvmlGpmQueryDeviceSupport(Device *d, GpmSupport *s) { ALIVE(d); s->is_supported = (unsigned)option("gpm", 1); return OK; }
int nvmlGpmSampleAlloc(int **sample) { *sample = calloc(1, sizeof(int)); return OK; }
int nvmlGpmSampleFree(int *sample) { free(sample); return OK; }
int nvmlGpmSampleGet(Device *d, int *sample) { static int serial; ALIVE(d); *sample = ++serial; return OK; }
typedef struct { unsigned id; int rc; double value; char *names[3]; } GpmMetric;
typedef struct { unsigned version, count; int *first, *second; GpmMetric metrics[]; } GpmAsked;
int nvmlGpmMetricsGet(GpmAsked *asked) {
    if (*asked->first >= *asked->second) return INVALID; /* the older sample comes first */
    for (unsigned i = 0; i < asked->count; i++) {
        asked->metrics[i].rc = asked->metrics[i].id == 10 ? NOT_SUPPORTED : OK;
        asked->metrics[i].value = asked->metrics[i].id >= 20 ? 100.0 : 80.0;
    }
    return OK;
}

typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } Process;
int nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, Process *found) {
    ALIVE(d);
    if (!found || *count < 2) { *count = 2; return TOO_SMALL; }
    *count = 2;
    found[0] = (Process){4242, 5000000000ULL, 0, 0};
    found[1] = (Process){4343, ~0ULL, 0, 0}; /* not known */
    return OK;
}
int nvmlSystemGetProcessName(unsigned pid, char *text, unsigned size) {
    /* odd_name: cut in the midst of a letter, as the driver does it */
    snprintf(text, size, option("odd_name", 0) ? "/usr/bin/caf\xc3" : "/usr/bin/python3 --api-key secret");
    return OK;
}

int nvmlDeviceGetMigMode(Device *d, unsigned *now, unsigned *pending) {
    ALIVE(d); *now = *pending = option("mig", -1) == d->gpu; return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *d, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned index, Device **part) {
    if (index >= 3) return NOT_FOUND;
    *part = &parts[index];
    return OK;
}
int nvmlDeviceGetGpuInstanceId(Device *d, unsigned *number) { *number = (unsigned)d->instance; return OK; }

typedef struct { Device *device; unsigned long long type, data; unsigned gi, ci; } Event;
int nvmlEventSetCreate(int **set) { *set = calloc(1, sizeof(int)); **set = (int)option("xid_serial", 0); return OK; }
int nvmlDeviceRegisterEvents(Device *d, unsigned long long types, int *set) { return OK; }
int nvmlEventSetWait_v2(int *set, Event *event, unsigned milliseconds) {
    for (unsigned waited = 0; waited < milliseconds; waited += 20) {
        int serial = (int)option("xid_serial", 0);
        if (serial > *set) {
            *set = serial;
            *event = (Event){&gpus[option("xid_gpu", 0)], 8, (unsigned long long)option("xid", 79), 0, 0};
            return OK;
        }
        usleep(20 * 1000);
    }
    return TIMED_OUT;
}
