-- Stands for the shop's database.
return {
  ["B-1001"] = { title = "Moby-Dick", price = 18.5, status = "delivered, damaged" },
  ["B-1002"] = { title = "A World Atlas", price = 240, status = "on its way" },
}
