#include "links/link_registry.h"

#include <mutex>
#include <unordered_map>

namespace apo {
namespace {

struct Registry {
  std::mutex mutex;
  uint32_t next_id = 1;
  std::unordered_map<uint32_t, std::weak_ptr<OpenedLink>> links;
};

Registry& registry() {
  // Never destroyed: threads of other environments may outlive static destructors.
  static Registry* instance = new Registry;
  return *instance;
}

}  // namespace

uint32_t register_link(const std::shared_ptr<OpenedLink>& link) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::erase_if(all.links, [](const auto& entry) { return entry.second.expired(); });
  const uint32_t id = all.next_id++;
  all.links[id] = link;
  return id;
}

std::shared_ptr<OpenedLink> find_link(uint32_t id) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  const auto found = all.links.find(id);
  return found == all.links.end() ? nullptr : found->second.lock();
}

}  // namespace apo
